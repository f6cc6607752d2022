"""A decision while it is made, and the ends that an attempt or a run can come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus
from seele_operator.decide.decision import Action, DeletePods, DeleteRun, Notice, Observed, ReleaseGang
from seele_operator.decide.run_pods import Crew, sort_pods
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan.gangs import gang_of

GONE_CHECK_SECONDS = 5.0
"""How often to look whether old pods are gone, should the news of it be lost."""


@dataclass
class Draft:
    """A decision while it is made."""

    run: SeeleRun
    status: RunStatus
    seen: Observed
    now: datetime
    actions: list[Action] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    consequential: bool = False

    @property
    def crew(self) -> Crew:
        """The pods, sorted for the attempt that the draft is at."""
        return sort_pods(self.run, self.status.attempt, self.seen.pods)

    @property
    def look_again(self) -> float | None:
        """Seconds until time alone changes something."""
        return min(self.looks, default=None)

    def set(self, **fields: Any) -> None:
        """Change these fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def tell(self, kind: Literal["Normal", "Warning"], reason: str, message: str) -> None:
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
            self.looks.append(left)
        return left <= 0

    def due(self, moment: datetime, longest: float) -> bool:
        """Whether `moment` has come; one that is more than `longest` seconds away was told by a clock that was ahead."""
        return (moment - self.now).total_seconds() > longest or self.passed(moment, 0.0)


def end_attempt(draft: Draft, why: str, delay: float = 0.0) -> None:
    """Stop all pods; those of the next attempt are made when these are gone and `delay` seconds have passed."""
    everyone = draft.crew.everyone
    draft.set(
        attempt=draft.status.attempt + 1,
        gang="stopping",
        not_before=draft.now + timedelta(seconds=delay) if delay else None,
        attempt_start_time=None,
        attempt_running_time=None,
        replacing={},
        eta_seconds=None,
    )
    draft.delete(everyone, why)
    draft.looks.append(GONE_CHECK_SECONDS if everyone else delay)
    draft.consequential = True


def finish(draft: Draft) -> None:
    """End the run: all steps are done."""
    steps = draft.status.steps or draft.run.spec.training.steps
    draft.set(phase="Succeeded", step=steps, steps=steps)
    _end(draft)
    draft.tell("Normal", "Succeeded", f"{steps} steps are done")


def fail(draft: Draft, reason: str, message: str) -> None:
    """End the run, with one stable word and a sentence about why."""
    draft.set(phase="Failed", failed_reason=reason, message=message)
    _end(draft)
    draft.tell("Warning", "Failed", f"{reason}: {message}")


def _end(draft: Draft) -> None:
    status = draft.status
    if status.active_since is not None:
        active = status.active_seconds + (draft.now - status.active_since).total_seconds()
        draft.set(active_seconds=active, active_since=None)
    draft.set(completion_time=draft.now, eta_seconds=None, replacing={}, not_before=None)
    draft.consequential = True
    clean_up(draft)


def clean_up(draft: Draft) -> None:
    """What is left to do for a run that has ended."""
    policy, ended = draft.run.spec.run_policy, draft.status.completion_time
    everyone = draft.crew.everyone
    going = {
        "Running": tuple(pod for pod in everyone if pod.lingers or pod.phase not in ("Succeeded", "Failed")),
        "All": everyone,
        "None": (),
    }[policy.clean_pod_policy]
    draft.delete(going, "the run has ended")
    # That everything was let go is written before it is done. Where there is something, it is looked for again.
    if draft.status.gang != "released" or gang_of(draft.run).objects(draft.run):
        draft.actions.append(ReleaseGang(draft.run))
        if not going:
            draft.set(gang="released")
    ttl = policy.ttl_seconds_after_finished
    if ttl is not None and ended is not None and draft.passed(ended, ttl):
        draft.actions.append(DeleteRun())
