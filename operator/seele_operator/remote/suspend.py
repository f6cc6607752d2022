"""`seele suspend` and `seele resume`: a run's pods away, and back again from its checkpoint."""

from __future__ import annotations

from seele_operator.remote.errors import BadInput
from seele_operator.remote.following import Say, wait_until
from seele_operator.remote.kubeconfig import Target, connect
from seele_operator.remote.seen_run import SeenRun, find, see
from seele_operator.remote.server import Server


def suspend(target: Target, name: str, say: Say, *, wait: bool) -> int:
    """Ask for a run's suspension; with `wait`, 0 when it is suspended and 1 where it ends before."""
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


def resume(target: Target, name: str, say: Say, *, wait: bool) -> int:
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


def _wait(server: Server, run: SeenRun, say: Say, *, suspended: bool) -> int:
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
