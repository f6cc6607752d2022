"""A decision while it is made, and the ends that an attempt or a run can come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from seele_operator.api.notices import Notice
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus
from seele_operator.decide.decision import Action, DeletePods, DeleteRun, Observed, ReleaseGang
from seele_operator.decide.run_pods import RunPods, sort_pods
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan.gangs import gang_of

GONE_CHECK_SECONDS = 5.0
"""How often to look whether old pods are gone, should the news of it be lost."""


@dataclass
class DecisionBuilder:
    """A decision while it is made."""

    run: SeeleRun
    status: RunStatus
    seen: Observed
    now: datetime
    actions: list[Action] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    recheck_after: list[float] = field(default_factory=list)
    needs_fresh_read: bool = False

    @property
    def run_pods(self) -> RunPods:
        """The pods, sorted for the attempt that the builder is at."""
        return sort_pods(self.run, self.status.attempt, self.seen.pods)

    @property
    def look_again(self) -> float | None:
        """Seconds until time alone changes something."""
        return min(self.recheck_after, default=None)

    def set(self, **fields: Any) -> None:
        """Change these fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def emit(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Post an Event."""
        self.notices.append(Notice(kind, reason, message))

    def delete(self, pods: tuple[ObservedPod, ...], why: str) -> None:
        """Delete those of the pods whose deletion was not asked for yet."""
        going = tuple(pod for pod in pods if not pod.terminating)
        if going:
            self.actions.append(DeletePods(going, why))

    def passed(self, since: datetime, limit: float) -> bool:
        """Whether `limit` seconds have passed since then; if not, come back when they have."""
        # In seconds, since a limit that somebody wrote may lie beyond the end of the calendar.
        left = limit - (self.now - since).total_seconds()
        if left > 0:
            self.recheck_after.append(left)
        return left <= 0

    def due(self, moment: datetime, longest: float) -> bool:
        """Whether `moment` has come; one that is more than `longest` seconds away was told by a clock that was ahead."""
        return (moment - self.now).total_seconds() > longest or self.passed(moment, 0.0)


def end_attempt(builder: DecisionBuilder, why: str, delay: float = 0.0) -> None:
    """Stop all pods; those of the next attempt are made when these are gone and `delay` seconds have passed."""
    everyone = builder.run_pods.everyone
    builder.set(
        attempt=builder.status.attempt + 1,
        gang="stopping",
        not_before=builder.now + timedelta(seconds=delay) if delay else None,
        attempt_start_time=None,
        attempt_running_time=None,
        replacing={},
        eta_seconds=None,
    )
    builder.delete(everyone, why)
    builder.recheck_after.append(GONE_CHECK_SECONDS if everyone else delay)
    builder.needs_fresh_read = True


def finish(builder: DecisionBuilder) -> None:
    """End the run: all steps are done."""
    steps = builder.status.steps or builder.run.spec.training.steps
    builder.set(phase="Succeeded", step=steps, steps=steps)
    _end(builder)
    builder.emit("Normal", "Succeeded", f"{steps} steps are done")


def fail(builder: DecisionBuilder, reason: str, message: str) -> None:
    """End the run, with one stable word and a sentence about why."""
    builder.set(phase="Failed", failed_reason=reason, message=message)
    _end(builder)
    builder.emit("Warning", "Failed", f"{reason}: {message}")


def _end(builder: DecisionBuilder) -> None:
    status = builder.status
    if status.active_since is not None:
        active = status.active_seconds + (builder.now - status.active_since).total_seconds()
        builder.set(active_seconds=active, active_since=None)
    builder.set(completion_time=builder.now, eta_seconds=None, replacing={}, not_before=None)
    builder.needs_fresh_read = True
    clean_up(builder)


def clean_up(builder: DecisionBuilder) -> None:
    """What is left to do for a run that has ended."""
    policy, ended = builder.run.spec.run_policy, builder.status.completion_time
    everyone = builder.run_pods.everyone
    going = {
        "Running": tuple(pod for pod in everyone if pod.lingers or pod.phase not in ("Succeeded", "Failed")),
        "All": everyone,
        "None": (),
    }[policy.clean_pod_policy]
    builder.delete(going, "the run has ended")
    # That everything was let go is written before it is done. Where there is something, it is looked for again.
    if builder.status.gang != "released" or gang_of(builder.run).objects(builder.run):
        builder.actions.append(ReleaseGang(builder.run))
        if not going:
            builder.set(gang="released")
    ttl = policy.ttl_seconds_after_finished
    if ttl is not None and ended is not None and builder.passed(ended, ttl):
        builder.actions.append(DeleteRun())
