"""The status of a SeeleRun: all that the operator remembers about a run.

Each counter is written here before the operator acts on it, so an operator that dies loses nothing that its successor needs.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import AwareDatetime, ConfigDict, Field

from seele_trainer.frozen_model import FrozenModel

RunPhase = Literal["Pending", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]
TERMINAL: tuple[RunPhase, ...] = ("Succeeded", "Failed")

ConditionType = Literal["Valid", "Scheduled", "RolloutReady", "TrainerReady", "Progressing", "Complete", "Failed"]
CONDITION_TYPES: tuple[ConditionType, ...] = get_args(ConditionType)

FailureClass = Literal["application", "disruption"]
"""Failures of the run's own processes, and what the cluster did to them. Each class has its own budget."""

GangState = Literal["stopping", "creating", "created", "released"]
"""`stopping`: pods of earlier attempts may still exist and have to go; `creating`: some pods of the attempt may not exist
yet; `created`: all of them have existed; `released`: the run has ended and holds no pods."""


class StatusSection(FrozenModel):
    """Part of a status. Unknown fields are ignored, as a newer operator may have written them."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusSection):
    """A condition, as in every Kubernetes API: one aspect of a run."""

    type: ConditionType
    """The aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: str
    """The reason as one stable word, for programs."""
    message: str = ""
    """The reason as a sentence, for people."""
    observed_generation: int = 0
    """Generation of the spec that the condition is about."""
    last_transition_time: AwareDatetime
    """When the status of the condition last changed."""


class Failures(StatusSection):
    """Failures since the run last made progress."""

    application: int = 0
    """Failures of the run's own processes."""
    disruption: int = 0
    """Evictions, preemptions, lost nodes and deleted pods."""


class LastFailure(StatusSection):
    """The latest failure that was counted."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    """The budget that the failure counts against."""
    reason: str
    """The reason as one stable word, such as OOMKilled, Error, Evicted, PodDeleted or Stalled."""
    pod: str | None = None
    """The first pod that failed."""
    container: str | None = None
    """The container of that pod."""
    exit_code: int | None = None
    """Exit code of the container."""
    message: str = ""
    """What happened, with the lines of the container's log that explain it if there are any."""
    error: str = ""
    """The line of a rollout server's log that names the error."""
    attempt: int = 0
    """The attempt that failed."""
    time: AwareDatetime
    """When the operator saw it."""


class Checkpoint(StatusSection):
    """A checkpoint."""

    step: int
    """Completed training steps."""
    path: str
    """Folder inside the run's folder."""
    time: AwareDatetime | None = None
    """When the operator first saw it."""


class Replacement(StatusSection):
    """A failed rollout pod that was counted and is being replaced on its own."""

    uid: str = ""
    """Identifier of the failed pod; empty if the pod was already gone."""
    not_before: AwareDatetime
    """Earliest time to create the new pod."""


class RunStatus(StatusSection):
    """The observed state of a run."""

    phase: RunPhase = "Pending"
    """State of the run in one word."""
    message: str = ""
    """State of the run in one sentence."""
    observed_generation: int = 0
    """Generation of the spec that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """State of the run by aspect."""

    step: int | None = None
    """Completed training steps."""
    steps: int | None = None
    """Training steps of the complete run."""
    reward: float | None = None
    """Mean reward of the latest step."""
    accuracy: float | None = None
    """Latest held-out accuracy without hints, from 0 to 1."""
    hint_rate: float | None = None
    """Mean share of the solution that is shown as a hint, from 0 to 1."""
    policy_version: int | None = None
    """Version of the weights that the rollout servers serve."""
    last_checkpoint: Checkpoint | None = None
    """Latest checkpoint, from which the next attempt resumes."""
    furthest_checkpoint_step: int = 0
    """Highest step that was ever saved. Failures before it no longer count."""
    eta_seconds: float | None = None
    """Estimated seconds until the run completes."""
    stop_seconds: float | None = None
    """Seconds that trainers may need to save when they are stopped, as they estimate it."""
    last_step_time: AwareDatetime | None = None
    """When the operator last saw a new step."""

    attempt: int = 0
    """Number of the current attempt, or of the next one if the last has ended. Starts at 1; 0 before the first."""
    gang: GangState = "stopping"
    """State of the attempt's pods."""
    attempt_start_time: AwareDatetime | None = None
    """When the pods of the attempt could first be created."""
    attempt_running_time: AwareDatetime | None = None
    """When all pods of the attempt were first running."""
    not_before: AwareDatetime | None = None
    """Earliest time to create the pods of the attempt, after a delay."""
    replacing: dict[str, Replacement] = {}
    """Rollout pods that are being replaced on their own, by name."""
    failures: Failures = Failures()
    """Failures since the run last made progress, which count against the budgets of runPolicy."""
    restarts: int = 0
    """Total number of restarts after failures."""
    last_failure: LastFailure | None = None
    """The latest failure that was counted."""

    start_time: AwareDatetime | None = None
    """When the run first started."""
    running_time: AwareDatetime | None = None
    """When the run was first in phase Running."""
    active_since: AwareDatetime | None = None
    """Start of the current period of activity; absent while suspended."""
    active_seconds: float = 0.0
    """Seconds of activity before `activeSince`."""
    failed_reason: str | None = None
    """Why the run failed, as one stable word."""
    completion_time: AwareDatetime | None = None
    """When the run ended."""
    accepted_spec: str | None = None
    """The spec that the pods follow, as JSON: the latest valid one that the run could be changed to."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of one type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def terminal(self) -> bool:
        """Whether the run has ended."""
        return self.phase in TERMINAL

    def to_api(self) -> dict[str, Any]:
        """Plain data for the API server, without unset fields."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_status(body: Mapping[str, Any]) -> RunStatus:
    """The status in a SeeleRun's body, or that of a new run if there is no status.

    Raises pydantic's ValidationError for a status that no operator wrote.
    """
    return RunStatus.model_validate(body.get("status") or {})


def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) from `before` to `after`: changed keys, and null for removed ones."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            inner = patch_between(old, value)
            if inner:
                patch[key] = inner
        elif key not in before or value != old:
            patch[key] = value
    return patch


def whole_seconds(moment: datetime) -> datetime:
    """`moment` with the precision that the API server stores."""
    return moment.replace(microsecond=0)
