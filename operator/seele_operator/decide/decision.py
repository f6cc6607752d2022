"""The input of a decision about a run, and its outcome."""

from dataclasses import dataclass

from seele_operator.api.events import Refusal, RunEvent
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus
from seele_operator.observe.pods import ObservedPod
from seele_operator.observe.trainer import ProgressSeen


@dataclass(frozen=True)
class Observed:
    """What is known about a run besides its own object."""

    pods: tuple[ObservedPod, ...] = ()
    """All pods with the run's label, of any owner and any attempt."""
    progress: ProgressSeen | None = None
    """The trainer's last answer; None if it has not answered since this operator started."""
    refusal: Refusal | None = None
    """Set when a creation is refused, until one succeeds."""


@dataclass(frozen=True)
class CreatePods:
    """Apply the attempt's other objects, then create these pods (POST, so that an existing pod is never changed)."""

    run: SeeleRun
    """The run to plan from, with its accepted spec, which may differ from the user's current one."""
    attempt: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class UpdateChildren:
    """After an accepted edit, apply all objects again except the pods."""

    run: SeeleRun
    attempt: int


@dataclass(frozen=True)
class AdoptPods:
    """Make the run the controller of these orphans."""

    pods: tuple[ObservedPod, ...]


@dataclass(frozen=True)
class DeletePods:
    """Delete these pods, each only if it still has the uid that was seen."""

    pods: tuple[ObservedPod, ...]
    why: str
    grace_seconds: int


@dataclass(frozen=True)
class ReleaseGang:
    """Delete the gang scheduler's PodGroup of the run, if any: it would hold quota for pods that are gone."""

    run: SeeleRun


@dataclass(frozen=True)
class DeleteRun:
    """Delete the SeeleRun itself: its time to live after the end has passed."""


Action = CreatePods | UpdateChildren | AdoptPods | DeletePods | ReleaseGang | DeleteRun


@dataclass(frozen=True)
class Decision:
    """The outcome of one pass. The status is written first; actions follow only if that succeeded."""

    status: RunStatus
    actions: tuple[Action, ...] = ()
    events: tuple[RunEvent, ...] = ()
    recheck_seconds: float | None = None
    """Seconds until the next pass if nothing happens before; None if none is needed."""
    needs_fresh_read: bool = False
    """It counts a failure, ends an attempt or finishes the run: decide again on a fresh read before acting."""
