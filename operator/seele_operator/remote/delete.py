"""`seele delete`: runs, with their objects, out of the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from seele_operator import names
from seele_operator.pod_json import mapping, text
from seele_operator.remote.errors import BadInput
from seele_operator.remote.following import Say, looks
from seele_operator.remote.kubeconfig import Target, connect
from seele_operator.remote.pod_lines import see_pods
from seele_operator.remote.runs_table import step_text
from seele_operator.remote.seen_run import SeenRun, find
from seele_operator.remote.server import Server

Ask = Callable[[str], bool]
"""Asks the user a question; True for yes."""


def delete(target: Target, wanted: Sequence[str], say: Say, ask: Ask | None, *, yes: bool, wait: bool) -> int:
    """Delete the runs once the user has agreed. `ask` is None where there is no terminal to ask on.

    Raises BadInput, with nothing deleted, where a run does not exist or nobody can agree.
    """
    server = Server(connect(target))
    runs = [find(server, name) for name in dict.fromkeys(wanted)]
    if not yes:
        if ask is None:
            again = target.command("delete", *(run.name for run in runs), "--yes")
            raise BadInput(
                f"there is no terminal to ask on, and nothing was deleted; to delete without a question: {again}"
            )
        for line in (line for run in runs for line in what_goes(run)):
            say(line)
        if not ask("Delete it?" if len(runs) == 1 else f"Delete these {len(runs)} runs?"):
            say("Nothing was deleted.")
            return 1
    for run in runs:
        server.delete_run(run.name, run.uid)
        say(f"{run.name}: deleted" if not wait else f"{run.name}: its deletion is asked for")
    if wait:
        for run in runs:
            _wait_until_gone(server, run, say)
    return 0


def what_goes(run: SeenRun) -> Iterator[str]:
    """What is deleted with a run, and what is kept."""
    where = f"{run.status.phase}, step {step_text(run)}" if run.taken_up else "not taken up"
    yield f"SeeleRun {run.name} in namespace {run.namespace} ({where}), with its pods, their logs and its other objects"
    storage = mapping(run.body, "spec", "storage")
    for volume, field in (("run", "run"), ("huggingface", "huggingFaceCache")):
        if volume == "run" or field in storage:
            yield f"  {_fate(run.name, volume, mapping(storage, field))}"


def _fate(run: str, volume: str, source: object) -> str:
    """What becomes of one volume."""
    holds = "the run's folder (checkpoints, report, final model)" if volume == "run" else "the Hugging Face cache"
    template = mapping(source, "persistentVolumeClaimTemplate")
    if template:
        claim = names.claim(run, volume)
        if template.get("retention") == "Delete":
            return f"deletes claim {claim} with {holds}"
        return f"keeps claim {claim} with {holds}; a run of the same name goes on from it"
    claim = text(mapping(source, "persistentVolumeClaim"), "claimName")
    if claim:
        return f"keeps claim {claim} with {holds}"
    path = text(mapping(source, "hostPath"), "path")
    if path:
        return f"keeps {path} on the node with {holds}"
    return f"deletes {holds}, which is inside its pod"


def _wait_until_gone(server: Server, run: SeenRun, say: Say) -> None:
    def remaining() -> int:
        body = server.run(run.name)
        there = body is not None and text(mapping(body, "metadata"), "uid") == run.uid
        return there + len([pod for pod in see_pods(server.pods(run.name), run.uid) if pod.seen.owner == "run"])

    for left in looks(remaining, say):
        if left == 0:
            say(f"{run.name}: gone")
            return
