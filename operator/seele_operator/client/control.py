"""`seele suspend` and `seele resume`: a run's pods away, and back again from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from seele_operator.client.errors import BadInput
from seele_operator.client.kubeconfig import Target, connect
from seele_operator.client.pods import see_pods
from seele_operator.client.runs import Print, SeenRun, find, looks, see, step_text, wait_until
from seele_operator.client.server import Server
from seele_operator.observe.raw import mapping, text
from seele_operator.plan import names


def suspend(target: Target, name: str, say: Print, *, wait: bool) -> int:
    """Confirm for a run's suspension; with `wait`, 0 when it is suspended and 1 where it ends before."""
    server = Server(connect(target))
    run = _changeable(server, name, "suspend")
    if run.policy.suspend:
        say(f"{name}: is suspended already" if _is_suspended(run) else f"{name}: its suspension was asked for already")
    else:
        run = see(server.set_suspend(name, True))
        grace = run.policy.termination_grace_period_seconds
        say(
            f"{name}: is being suspended: its trainers save at the end of the step, as far as {grace} s suffice "
            "(runPolicy.terminationGracePeriodSeconds), then all its pods go"
        )
        say(f"It goes on from its last checkpoint with: {target.command('resume', name)}")
    return _wait(server, run, say, suspended=True) if wait else 0


def resume(target: Target, name: str, say: Print, *, wait: bool) -> int:
    """Let a suspended run go on; with `wait`, 0 when it is running again and 1 where that cannot be."""
    server = Server(connect(target))
    run = _changeable(server, name, "resume")
    if not run.policy.suspend:
        say(f"{name}: is not suspended")
    else:
        run = see(server.set_suspend(name, False))
        checkpoint = run.status.last_checkpoint
        where = "from the beginning" if checkpoint is None else f"from step {checkpoint.step}"
        say(f"{name}: goes on {where}; to follow it: {target.command('status', name, '-w')}")
    return _wait(server, run, say, suspended=False) if wait else 0


def _changeable(server: Server, name: str, verb: str) -> SeenRun:
    run = find(server, name)
    if run.deleting:
        raise BadInput(f"{name}: is being deleted; there is nothing to {verb}")
    if run.status.terminal:
        raise BadInput(f"{name}: has {run.status.phase.lower()}; there is nothing to {verb}")
    return run


def _is_suspended(run: SeenRun) -> bool:
    return run.status.phase == "Suspended" and run.up_to_date


def _wait(server: Server, run: SeenRun, say: Print, *, suspended: bool) -> int:
    def reached(seen: SeenRun) -> bool:
        there = seen.status.phase == ("Suspended" if suspended else "Running")
        return seen.up_to_date and (there or seen.status.terminal or seen.invalid is not None)

    seen = wait_until(server, run, say, reached)
    if seen is None:
        say(f"{run.name}: was deleted")
        return 1
    if seen.invalid is not None and not seen.status.terminal:
        say(f"{run.name}: the operator refuses the spec: {seen.invalid}")
        return 1
    if suspended:
        return 0 if seen.status.phase == "Suspended" else 1
    return 1 if seen.status.phase == "Failed" else 0


Confirm = Callable[[str], bool]
"""Asks the user a question; True for yes."""


def delete(target: Target, wanted: Sequence[str], say: Print, ask: Confirm | None, *, yes: bool, wait: bool) -> int:
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


def _wait_until_gone(server: Server, run: SeenRun, say: Print) -> None:
    def remaining() -> int:
        body = server.run(run.name)
        there = body is not None and text(mapping(body, "metadata"), "uid") == run.uid
        return there + len([pod for pod in see_pods(server.pods(run.name), run.uid) if pod.seen.owner == "run"])

    for left in looks(remaining, say):
        if left == 0:
            say(f"{run.name}: gone")
            return
