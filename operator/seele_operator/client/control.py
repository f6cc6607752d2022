"""`seele suspend`, `seele resume` and `seele delete`."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from seele_operator.client.errors import BadInput
from seele_operator.client.pods import see_pods
from seele_operator.client.runs import Print, SeenRun, find, poll, read_again, see, wait_until
from seele_operator.client.runs_api import RunsApi
from seele_operator.observe.raw import mapping, text
from seele_operator.plan import names
from seele_trainer.formatting import counted, duration, short_duration
from seele_trainer.termination import ExitCode

Confirm = Callable[[str], bool]
"""Asks the user a question; True for yes."""


async def suspend(api: RunsApi, name: str, print_line: Print, *, wait: bool) -> ExitCode:
    """Suspend a run; with `wait`, DONE once it is suspended and FAILED if it ends first."""
    run = await _find_changeable(api, name, "suspend")
    if run.policy.suspend:
        suspended = run.status.phase == "Suspended" and run.up_to_date
        print_line(f"{name}: is already suspended" if suspended else f"{name}: is already being suspended")
    else:
        run = see(await api.set_suspend(name, True))
        stops = "; its trainers save the last finished step first" if _trains(run) else ""
        print_line(f"{name}: is being suspended{stops}")
        for line in at_stake(run):
            print_line(f"{name}: {line}")
        print_line(f"To resume it: {api.command('resume', name)}")
    return await _wait_for(api, run, print_line, "Suspended") if wait else ExitCode.DONE


def _trains(run: SeenRun) -> bool:
    return not run.status.terminal and run.status.attempt_running_time is not None


def at_stake(run: SeenRun) -> Iterator[str]:
    """How long the trainers of a run need to stop, and what is lost if they are killed before they have saved."""
    if not _trains(run):
        return
    status, grace = run.status, run.policy.termination_grace_period_seconds
    killed = f"pods are killed after {duration(grace)} (runPolicy.terminationGracePeriodSeconds)"
    needed = status.stop_seconds
    yield killed if needed is None else f"saving may take {duration(needed)}; {killed}"
    yield f"{_kept(run)}; what is newer is lost if they are killed before it is saved"


def _kept(run: SeenRun) -> str:
    """The last checkpoint, and how many finished steps are newer."""
    checkpoint, step = run.status.last_checkpoint, run.status.step or 0
    if checkpoint is None:
        return f"no step is saved yet, of {step} finished"
    age = f", {short_duration((datetime.now(UTC) - checkpoint.time).total_seconds())} ago" if checkpoint.time else ""
    unsaved = step - checkpoint.step
    return f"step {checkpoint.step} is saved{age}" + (
        f", and {counted(unsaved, 'finished step')} {'is' if unsaved == 1 else 'are'} not" if unsaved > 0 else ""
    )


async def resume(api: RunsApi, name: str, print_line: Print, *, wait: bool) -> ExitCode:
    """Resume a suspended run; with `wait`, DONE once it is running again and FAILED if that is impossible."""
    run = await _find_changeable(api, name, "resume")
    if not run.policy.suspend:
        print_line(f"{name}: is not suspended")
    else:
        run = see(await api.set_suspend(name, False))
        checkpoint = run.status.last_checkpoint
        start = "from the beginning" if checkpoint is None else f"from step {checkpoint.step}"
        print_line(f"{name}: resumes {start}; to follow it: {api.command('status', name, '-w')}")
    return await _wait_for(api, run, print_line, "Running") if wait else ExitCode.DONE


async def _find_changeable(api: RunsApi, name: str, verb: str) -> SeenRun:
    run = await find(api, name)
    if run.deleting:
        raise BadInput(f"{name}: is being deleted; there is nothing to {verb}")
    if run.status.terminal:
        raise BadInput(f"{name}: has {run.status.phase.lower()}; there is nothing to {verb}")
    return run


async def _wait_for(api: RunsApi, run: SeenRun, print_line: Print, phase: str) -> ExitCode:
    def reached(current: SeenRun) -> bool:
        ended = current.status.terminal or current.invalid is not None
        progressing = current.status.condition("Progressing")
        # A suspended run still saves while its pods are stopping.
        stopping = progressing is not None and progressing.reason in ("StoppingPods", "PodStuckTerminating")
        return current.up_to_date and ((current.status.phase == phase and not stopping) or ended)

    last = await wait_until(api, run, print_line, reached)
    if last is None:
        return ExitCode.FAILED
    if last.status.phase == phase == "Suspended":
        print_line(f"{run.name}: its pods are gone; {_kept(last)}")
    # A run that succeeds before it is seen running was resumed all the same.
    resumed = phase == "Running" and last.status.phase != "Failed"
    return ExitCode.DONE if resumed or last.status.phase == phase else ExitCode.FAILED


async def find_all(api: RunsApi, wanted: Sequence[str]) -> list[SeenRun]:
    """The runs of these names. Raises BadInput if one of them does not exist."""
    return [await find(api, name) for name in dict.fromkeys(wanted)]


def confirm_deletion(api: RunsApi, runs: Sequence[SeenRun], print_line: Print, confirm: Confirm | None) -> bool:
    """Print what the deletion removes and what it keeps, and ask. `confirm` is None if there is no terminal to ask on:
    raises BadInput then.
    """
    if confirm is None:
        again = api.command("delete", *(run.name for run in runs), "--yes")
        raise BadInput(f"nothing was deleted: there is no terminal to ask on; to delete without a question: {again}")
    for run in runs:
        for line in consequences(run):
            print_line(line)
    return confirm("Delete it?" if len(runs) == 1 else f"Delete these {len(runs)} runs?")


async def delete(api: RunsApi, runs: Sequence[SeenRun], print_line: Print, *, wait: bool) -> None:
    """Delete the runs; with `wait`, return when they and their pods are gone."""
    for run in runs:
        await api.delete_run(run.name, run.uid)
        print_line(f"{run.name}: deletion requested" if wait else f"{run.name}: deleted")
    for run in runs if wait else ():
        await _wait_until_gone(api, run, print_line)


async def _wait_until_gone(api: RunsApi, run: SeenRun, print_line: Print) -> None:
    async def remaining() -> int:
        present = await read_again(api, run) is not None
        pods = see_pods(await api.pods(run.name), run.uid)
        return present + sum(pod.seen.owner == "run" for pod in pods)

    async for count in poll(remaining, print_line):
        if count == 0:
            print_line(f"{run.name}: gone")
            return


def consequences(run: SeenRun) -> Iterator[str]:
    """What is deleted with a run and what is kept, a line for each."""
    state = f"{run.status.phase}, step {run.step_count}" if run.has_status else "not picked up by an operator"
    yield f"SeeleRun {run.name} in namespace {run.namespace} ({state}), with its pods, their logs and its other objects"
    for line in at_stake(run):
        yield f"  {line}"
    storage = mapping(run.body, "spec", "storage")
    for volume, field in (("run", "run"), ("huggingface", "huggingFaceCache")):
        if volume == "run" or field in storage:
            yield f"  {_fate(run.name, volume, mapping(storage, field))}"


def _fate(run: str, volume: str, source: object) -> str:
    """What happens to one volume."""
    holds = "the run's folder (checkpoints, report, final model)" if volume == "run" else "the Hugging Face cache"
    template = mapping(source, "persistentVolumeClaimTemplate")
    if template:
        claim = names.claim(run, volume)
        if template.get("retention") == "Delete":
            return f"deletes claim {claim} with {holds}"
        return f"keeps claim {claim} with {holds}; a run of the same name continues from it"
    claim = text(mapping(source, "persistentVolumeClaim"), "claimName")
    if claim:
        return f"keeps claim {claim} with {holds}"
    path = text(mapping(source, "hostPath"), "path")
    if path:
        return f"keeps {path} on the node with {holds}"
    return f"deletes {holds}, which is inside its pod"
