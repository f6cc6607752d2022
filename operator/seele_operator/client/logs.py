"""`seele logs`: the logs of all containers of a run's present attempt, as they are or as they grow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from seele_operator.client.errors import BadInput, Missing, NotReady, RemoteError, Unreachable
from seele_operator.client.kubeconfig import Target, connect
from seele_operator.client.log_lines import LogPrinter, log_line
from seele_operator.client.log_stream import LogFollower
from seele_operator.client.pods import Container, SeenPod, Selection, containers, newest_attempt, see_pods
from seele_operator.client.runs import SeenRun, find, plain_line
from seele_operator.client.server import LogRange, Server

_UNITS = (86400, 3600, 60, 1)


@dataclass(frozen=True)
class LogsWanted:
    """What the user asked for."""

    selection: Selection
    follow: bool = False
    tail: int | None = None
    since_seconds: int | None = None


def logs(target: Target, name: str, wanted: LogsWanted, printer: LogPrinter) -> int:
    """Print the logs: 0, or 1 where there were none to print or some could not be read. Raises RemoteError."""
    server = Server(connect(target))
    run = find(server, name)
    pods = see_pods(server.pods(name), run.uid)
    wanted.selection.check(pods, name, later=wanted.follow)
    first = LogRange(wanted.follow, wanted.tail, wanted.since_seconds)
    if wanted.follow:
        LogFollower(server, run, newest_attempt(pods), wanted.selection, first, printer).follow()
        return 0
    newest = [pod for pod in pods if pod.seen.attempt == newest_attempt(pods) and wanted.selection.includes(pod)]
    if not newest:
        printer.note(_nothing(run, pods))
        return 1
    return 1 if _print_all(server, [part for pod in newest for part in containers(pod)], first, printer) else 0


def seconds_of(since: str) -> int:
    """`10m`, `1h30m` or `45s` in seconds. Raises BadInput for anything else."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", since)
    seconds = sum(int(part) * unit for part, unit in zip(found.groups("0"), _UNITS, strict=True)) if found else 0
    if seconds == 0:
        raise BadInput(f"--since: {since} is no time; write it like 45s, 10m or 1h30m")
    return seconds


def _print_all(server: Server, parts: Sequence[Container], wanted: LogRange, printer: LogPrinter) -> list[RemoteError]:
    """Print one log after the other; returns what went wrong."""
    errors: list[RemoteError] = []
    for part in parts:
        printer.expect(part.label)
    for part in parts:
        if part.state == "waiting":
            if part.waits_for:
                printer.note(f"waits: {part.waits_for}", part.label)
            continue
        try:
            with server.log(part.pod.seen.name, part.name, wanted) as lines:
                for raw in lines:
                    printer.line(part.label, log_line(raw))
        except (Missing, NotReady, Unreachable) as error:
            printer.note(str(error), part.label)
            errors.append(error)
        printer.flush()
    return errors


def _nothing(run: SeenRun, pods: Sequence[SeenPod]) -> str:
    if pods:
        return f"{run.name}: has no such pods in its present attempt; leave out --role, or see: seele status {run.name}"
    if run.status.terminal:
        return f"{plain_line(run)}: its pods are gone, and their logs with them"
    return f"{plain_line(run)}: it has no pods now; with --follow their logs are waited for"
