"""`seele logs`: the logs of all containers of a run, printed once or followed across attempts and lost connections."""

import asyncio
import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from seele_operator.client.errors import BadInput, CommandError, Missing, NotReady, Silence, Unreachable
from seele_operator.client.log_lines import LogLine, LogPrinter, Position, log_line
from seele_operator.client.pods import Container, SeenPod, Selection, containers, newest_attempt, see_pods
from seele_operator.client.runs import SeenRun, find, plain_line, poll, read_again
from seele_operator.client.runs_api import LogRange, RunsApi
from seele_trainer.termination import ExitCode

POLL_SECONDS = 1.0
RETRY_SECONDS = 2.0
"""Pause after a failed connection."""
QUIET_SECONDS = 5.0
"""Once the run has ended: silence after which containers that are still running are no longer followed."""
WAITING_LINES = 10_000
"""Lines that are read ahead of printing; containers that write faster wait."""
_WHOLE = LogRange(follow=True)
"""Logs that start after the command are shown from their beginning."""
_UNITS = (86400, 3600, 60, 1)


async def logs(api: RunsApi, name: str, selection: Selection, part: LogRange, printer: LogPrinter) -> ExitCode:
    """Print the logs; FAILED if there were none, or if some could not be read. Raises CommandError."""
    run = await find(api, name)
    pods = see_pods(await api.pods(name), run.uid)
    selection.check(pods, name, later=part.follow)
    attempt = newest_attempt(pods)
    if part.follow:
        await LogFollower(api, run, attempt, selection, part, printer).follow()
        return ExitCode.DONE
    newest = [pod for pod in pods if pod.seen.attempt == attempt and selection.includes(pod)]
    if not newest:
        printer.note(_no_pods(run, pods))
        return ExitCode.FAILED
    complete = await _print_all(api, [container for pod in newest for container in containers(pod)], part, printer)
    return ExitCode.DONE if complete else ExitCode.FAILED


def seconds_of(since: str) -> int:
    """`10m`, `1h30m` or `45s` in seconds. Raises BadInput for anything else."""
    found = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", since)
    seconds = sum(int(part) * unit for part, unit in zip(found.groups("0"), _UNITS, strict=True)) if found else 0
    if seconds == 0:
        raise BadInput(f"--since: {since} is not a duration; write it like 45s, 10m or 1h30m")
    return seconds


async def _print_all(api: RunsApi, all_containers: Sequence[Container], part: LogRange, printer: LogPrinter) -> bool:
    """Print one log after the other; False if some could not be read."""
    complete = True
    for container in all_containers:
        printer.expect(container.label)
    for container in all_containers:
        if container.state == "waiting":
            if container.waits_for:
                printer.note(f"waiting: {container.waits_for}", container.label)
            continue
        try:
            async with contextlib.aclosing(api.log(container.pod.seen.name, container.name, part)) as lines:
                async for raw in lines:
                    printer.line(container.label, log_line(raw))
        except (Missing, NotReady, Unreachable) as error:
            printer.note(str(error), container.label)
            complete = False
        printer.flush()
    return complete


def _no_pods(run: SeenRun, pods: Sequence[SeenPod]) -> str:
    if pods:
        return f"{run.name}: its current attempt has no such pods; leave out --role, or see: seele status {run.name}"
    if run.status.terminal:
        return f"{plain_line(run)}: its pods are gone, and their logs with them"
    return f"{plain_line(run)}: it has no pods now; use --follow to wait for their logs"


@dataclass
class _Log:
    """The log of one container."""

    label: str
    pod: str
    container: str
    first: LogRange
    position: Position = field(default_factory=Position)
    reader: asyncio.Task[None] | None = None
    """The last connection; None before the first."""
    connected: bool = False
    complete: bool = False
    had_ended: bool = False
    """Whether the container had ended before the current connection was made, which then brings the rest of the log."""
    not_before: float = 0.0
    last_note: str = ""


@dataclass(frozen=True)
class _Disconnected:
    log: _Log
    error: CommandError | None


class LogFollower:
    """Reads each container's log in a task of its own; the caller's task watches the run, prints, and connects."""

    def __init__(
        self,
        api: RunsApi,
        run: SeenRun,
        attempt: int,
        selection: Selection,
        first: LogRange,
        printer: LogPrinter,
    ):
        self._api = api
        self._run = run
        self._attempt = attempt
        self._selection = selection
        self._first = first
        self._printer = printer
        self._logs: dict[tuple[str, str], _Log] = {}
        self._arrived: asyncio.Queue[tuple[str, LogLine] | _Disconnected] = asyncio.Queue(WAITING_LINES)
        self._last_line = time.monotonic()

    async def follow(self) -> None:
        """Print until the run has ended and its logs are complete. Raises CommandError if that is impossible."""
        try:
            await self._follow()
        finally:
            readers = [log.reader for log in self._logs.values() if log.reader is not None]
            for reader in readers:
                reader.cancel()
            await asyncio.gather(*readers, return_exceptions=True)

    async def _follow(self) -> None:
        first = self._first
        phase = self._run.status.phase
        async for run, present in poll(self._read_run, self._printer.note, self._print_arrivals):
            if run is not None and run.status.phase != phase:
                self._printer.note(plain_line(run))
                phase = run.status.phase
            for container in present:
                self._attend(container, first if container.state != "waiting" else _WHOLE)
            self._complete_others({container.key for container in present})
            first = _WHOLE
            if run is None:
                self._printer.note(f"{self._run.name}: was deleted")
            if (run is None or run.status.terminal) and self._drained():
                return

    async def _read_run(self) -> tuple[SeenRun | None, list[Container]]:
        run = await read_again(self._api, self._run)
        pods = [
            pod
            for pod in see_pods(await self._api.pods(self._run.name), self._run.uid)
            if pod.seen.attempt >= self._attempt and self._selection.includes(pod)
        ]
        return run, [container for pod in pods for container in containers(pod)]

    def _attend(self, container: Container, first: LogRange) -> None:
        """Connect to a container's log unless that is done; print why the container has not started, if it has not."""
        log = self._logs.get(container.key)
        if log is None:
            log = _Log(container.label, container.pod.seen.name, container.name, first)
            self._logs[container.key] = log
            self._printer.expect(container.label)
        if log.reader is not None and log.reader.done():
            log.reader.result()  # raises an unexpected error
        if container.pod.seen.attempt > self._attempt:
            self._attempt = container.pod.seen.attempt
            self._printer.note(f"── attempt {self._attempt} ──")
        if container.state == "waiting":
            if container.waits_for:
                self._note(log, f"waiting: {container.waits_for}")
        elif not log.connected and not log.complete and time.monotonic() >= log.not_before:
            log.connected, log.had_ended = True, container.state == "ended"
            log.reader = asyncio.create_task(self._read(log), name=log.label)

    def _complete_others(self, present: set[tuple[str, str]]) -> None:
        """Logs of pods that are gone are complete once no connection to them is open."""
        for key, log in self._logs.items():
            if key not in present and not log.connected:
                log.complete = True

    async def _read(self, log: _Log) -> None:
        """Read one connection, from where the last one ended."""
        since = log.position.since_time
        part = log.first if since is None else LogRange(follow=True, since_time=since)
        log.position.reconnected()
        error: CommandError | None = None
        try:
            async with contextlib.aclosing(self._api.log(log.pod, log.container, part)) as lines:
                async for raw in lines:
                    line = log_line(raw)
                    if log.position.is_new(line):
                        await self._arrived.put((log.label, line))
        except CommandError as raised:
            error = raised
        await self._arrived.put(_Disconnected(log, error))

    async def _print_arrivals(self) -> None:
        """Print the lines that arrive until it is time to read the run again."""
        deadline = time.monotonic() + POLL_SECONDS
        while (left := deadline - time.monotonic()) > 0:
            try:
                arrived = self._arrived.get_nowait()
            except asyncio.QueueEmpty:
                self._printer.flush()
                try:
                    arrived = await asyncio.wait_for(self._arrived.get(), left)
                except TimeoutError:
                    return
            if isinstance(arrived, _Disconnected):
                self._disconnected(arrived.log, arrived.error)
            else:
                self._printer.line(*arrived)
                self._last_line = time.monotonic()

    def _disconnected(self, log: _Log, error: CommandError | None) -> None:
        log.connected = False
        log.complete = isinstance(error, Missing) or (error is None and log.had_ended)
        if error is None or isinstance(error, Missing | Silence):
            return
        if not isinstance(error, NotReady | Unreachable):
            raise error
        log.not_before = time.monotonic() + RETRY_SECONDS
        self._note(log, str(error))

    def _note(self, log: _Log, text: str) -> None:
        if text != log.last_note:
            self._printer.note(text, log.label)
            log.last_note = text

    def _drained(self) -> bool:
        """Whether every line was printed."""
        if not self._arrived.empty():
            return False
        unfinished = any(log.reader is not None and not log.complete for log in self._logs.values())
        return not unfinished or time.monotonic() - self._last_line > QUIET_SECONDS
