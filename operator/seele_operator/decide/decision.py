"""What goes into a decision about a run, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

from seele_operator.api.notices import Notice, Refusal
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus
from seele_operator.observe.pods import ObservedPod
from seele_operator.observe.trainer import ProgressSeen


@dataclass(frozen=True)
class Observed:
    """What is seen of a run, besides its own object."""

    pods: tuple[ObservedPod, ...] = ()
    """All pods with the run's label, whoever controls them and whichever attempt they belong to."""
    progress: ProgressSeen | None = None
    """The trainer's last answer; None where it never answered since this operator started."""
    refusal: Refusal | None = None
    """Set from a refused creation until one succeeds."""


@dataclass(frozen=True)
class CreatePods:
    """Apply the attempt's other objects, then create these pods (POST, so that an existing pod is never changed)."""

    run: SeeleRun
    """The run to plan from: its accepted spec, which may differ from what the user wrote last."""
    attempt: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class UpdateChildren:
    """Apply the config map, services, policies and budgets again after an accepted edit; no pods."""

    run: SeeleRun
    attempt: int


@dataclass(frozen=True)
class AdoptPods:
    """Make the run the controller of these orphans."""

    pods: tuple[ObservedPod, ...]


@dataclass(frozen=True)
class DeletePods:
    """Delete these pods, each only while it still has the uid that was seen."""

    pods: tuple[ObservedPod, ...]
    why: str


@dataclass(frozen=True)
class ReleaseGang:
    """Delete the gang scheduler's PodGroup of the run, where there is one: it would hold quota for pods that are gone."""

    run: SeeleRun


@dataclass(frozen=True)
class DeleteRun:
    """Delete the SeeleRun itself; its time after the end is over."""


Action = CreatePods | UpdateChildren | AdoptPods | DeletePods | ReleaseGang | DeleteRun


@dataclass(frozen=True)
class Decision:
    """What becomes of a run in one pass. The status is written first; actions follow only where that succeeded."""

    status: RunStatus
    actions: tuple[Action, ...] = ()
    notices: tuple[Notice, ...] = ()
    look_again: float | None = None
    """Seconds until time alone changes something; None where only an event can."""
    needs_fresh_read: bool = False
    """Counts a failure, ends an attempt, or finishes the run: to be decided again on a fresh read before it is acted on."""
