"""Building a decision, and the ways in which an attempt or a run ends."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from seele_operator.api.events import RunEvent
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus
from seele_operator.decide.decision import Action, DeletePods, DeleteRun, Observed, ReleaseGang
from seele_operator.decide.run_pods import RunPods, sort_pods
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan.gang_schedulers import gang_scheduler_of
from seele_operator.plan.probes import HUNG_SECONDS

GONE_CHECK_SECONDS = 5.0
"""How often to check whether old pods are gone, in case the watch misses it."""


@dataclass
class DecisionBuilder:
    """A decision in the making: the new status, actions and events collected so far."""

    run: SeeleRun
    status: RunStatus
    seen: Observed
    now: datetime
    actions: list[Action] = field(default_factory=list)
    events: list[RunEvent] = field(default_factory=list)
    recheck_after: list[float] = field(default_factory=list)
    needs_fresh_read: bool = False

    @property
    def run_pods(self) -> RunPods:
        """The run's pods, sorted for the attempt in the status."""
        return sort_pods(self.run, self.status.attempt, self.seen.pods)

    def set(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def emit(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Post an Event."""
        self.events.append(RunEvent(kind, reason, message))

    def delete(self, pods: tuple[ObservedPod, ...], why: str, *, save: bool = True) -> None:
        """Delete the pods, except those that are already being deleted. They get time to `save` only if they can."""
        remaining = tuple(pod for pod in pods if not pod.terminating)
        if remaining:
            grace = self.run.spec.run_policy.termination_grace_period_seconds
            can_save = save and self.run_pods.can_save
            self.actions.append(DeletePods(remaining, why, grace if can_save else min(grace, HUNG_SECONDS)))

    def passed(self, since: datetime, limit: float) -> bool:
        """Whether `limit` seconds have passed since then; if not, recheck when they have."""
        # In seconds, because a user's limit may lie beyond the end of the calendar.
        left = limit - (self.now - since).total_seconds()
        if left > 0:
            self.recheck_after.append(left)
        return left <= 0

    def due(self, moment: datetime, longest: float) -> bool:
        """Whether `moment` has come; if it is more than `longest` seconds away, the clock that set it was ahead."""
        return (moment - self.now).total_seconds() > longest or self.passed(moment, 0.0)


def end_attempt(builder: DecisionBuilder, why: str, delay: float = 0.0, *, save: bool = True) -> None:
    """Stop all pods; the next attempt's are created once these are gone and `delay` seconds have passed."""
    own = builder.run_pods.own
    builder.set(
        attempt=builder.status.attempt + 1,
        gang="stopping",
        not_before=builder.now + timedelta(seconds=delay) if delay else None,
        attempt_start_time=None,
        attempt_running_time=None,
        replacing={},
        eta_seconds=None,
    )
    builder.delete(own, why, save=save)
    builder.recheck_after.append(GONE_CHECK_SECONDS if own else delay)
    builder.needs_fresh_read = True


def finish(builder: DecisionBuilder) -> None:
    """End the run successfully: all steps are done."""
    steps = builder.status.steps or builder.run.spec.training.steps
    builder.set(phase="Succeeded", step=steps, steps=steps)
    _end(builder)
    builder.emit("Normal", "Succeeded", f"{steps} steps are done")


def fail(builder: DecisionBuilder, reason: str, message: str) -> None:
    """End the run as failed, with a stable word and a sentence as the reason."""
    builder.set(phase="Failed", failed_reason=reason, message=message)
    _end(builder)
    builder.emit("Warning", "Failed", f"{reason}: {message}")


def stop_active_time(builder: DecisionBuilder) -> None:
    """Add the time since the run was last started or resumed to its active time."""
    status = builder.status
    if status.active_since is not None:
        active = status.active_seconds + (builder.now - status.active_since).total_seconds()
        builder.set(active_seconds=active, active_since=None)


def _end(builder: DecisionBuilder) -> None:
    stop_active_time(builder)
    builder.set(completion_time=builder.now, eta_seconds=None, replacing={}, not_before=None)
    builder.needs_fresh_read = True
    clean_up(builder)


def clean_up(builder: DecisionBuilder) -> None:
    """What remains to be done for a run that has ended."""
    policy, ended = builder.run.spec.run_policy, builder.status.completion_time
    own = builder.run_pods.own
    unwanted = {
        "Running": tuple(pod for pod in own if pod.lingers or pod.phase not in ("Succeeded", "Failed")),
        "All": own,
        "None": (),
    }[policy.clean_pod_policy]
    builder.delete(unwanted, "the run has ended")
    # "released" is written before the release is carried out, so a gang scheduler's objects are released in every pass.
    if builder.status.gang != "released" or gang_scheduler_of(builder.run).objects(builder.run):
        builder.actions.append(ReleaseGang(builder.run))
        if not unwanted:
            builder.set(gang="released")
    ttl = policy.ttl_seconds_after_finished
    if ttl is not None and ended is not None and builder.passed(ended, ttl):
        builder.actions.append(DeleteRun())
