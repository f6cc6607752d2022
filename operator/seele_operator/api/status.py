"""The status of a SeeleRun: everything that the operator knows about a run from one pass to the next.

Every counter is written here before it is acted on, so that an operator that dies at any moment leaves nothing in its
memory that the next one would need.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from seele_trainer.frozen_model import FrozenModel

RunPhase = Literal["Pending", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"]
TERMINAL: tuple[RunPhase, ...] = ("Succeeded", "Failed")

ConditionType = Literal["Valid", "Scheduled", "RolloutReady", "TrainerReady", "Progressing", "Complete", "Failed"]
CONDITION_TYPES: tuple[ConditionType, ...] = (
    "Valid",
    "Scheduled",
    "RolloutReady",
    "TrainerReady",
    "Progressing",
    "Complete",
    "Failed",
)

FailureClass = Literal["application", "disruption"]
"""Failures of the run's own processes, and what the cluster did to them. Each class has a budget of its own."""

GangState = Literal["stopping", "creating", "created", "released"]
"""Pods of earlier attempts may still be there and have to go; some pods of the attempt may not exist yet; all of them have
existed; the run is over and holds nothing any more."""


class StatusSection(FrozenModel):
    """Part of a status. An older operator may read what a newer one wrote, so unknown fields are let through."""

    model_config = ConfigDict(extra="ignore")


class Condition(StatusSection):
    """One question about a run, with its present answer; as in every Kubernetes API."""

    type: ConditionType
    """What the condition is about."""
    status: Literal["True", "False", "Unknown"]
    """The answer."""
    reason: str
    """Why, in one stable word for programs."""
    message: str = ""
    """Why, in words for people."""
    observed_generation: int = 0
    """Generation of the spec that the answer is about."""
    last_transition_time: AwareDatetime
    """When the answer changed last."""


class Failures(StatusSection):
    """Failures since the run last got further."""

    application: int = 0
    """Failures of the run's own processes."""
    disruption: int = 0
    """Evictions, preemptions, lost nodes and deleted pods."""


class LastFailure(StatusSection):
    """The failure that was counted last."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    """Which budget it was counted against."""
    reason: str
    """One stable word, such as OOMKilled, Error, Evicted, PodDeleted or Stalled."""
    pod: str | None = None
    """Pod that failed first."""
    container: str | None = None
    """Container of that pod."""
    exit_code: int | None = None
    """Exit code of the container."""
    message: str = ""
    """What happened, with the last lines of the container's log where there are any."""
    attempt: int = 0
    """Attempt that failed."""
    time: AwareDatetime
    """When the operator saw it."""


class Checkpoint(StatusSection):
    """A saved state of the run."""

    step: int
    """Training steps done."""
    path: str
    """Folder, below the run's folder."""


class Replacement(StatusSection):
    """A rollout pod that failed, was counted, and is replaced alone."""

    uid: str = ""
    """Identifier of the pod that failed; empty where the pod was already gone."""
    not_before: AwareDatetime
    """When the new pod may be created."""


class RunStatus(StatusSection):
    """Where a run stands."""

    phase: RunPhase = "Pending"
    """Where the run stands, in one word."""
    message: str = ""
    """Where the run stands, in one sentence."""
    observed_generation: int = 0
    """Generation of the spec that this status is about."""
    conditions: tuple[Condition, ...] = ()
    """Where the run stands, question by question."""

    step: int | None = None
    """Training steps done."""
    steps: int | None = None
    """Training steps of the whole run."""
    reward: float | None = None
    """Mean reward of the last step."""
    accuracy: float | None = None
    """Latest held-out accuracy without hints, from 0 to 1."""
    hint_rate: float | None = None
    """Mean share of the solution that is shown as a hint, from 0 to 1."""
    policy_version: int | None = None
    """Version of the weights that the rollout servers serve."""
    last_checkpoint: Checkpoint | None = None
    """Latest saved state, from which the next attempt goes on."""
    furthest_checkpoint_step: int = 0
    """Step of the furthest state that was ever saved; failures before it are forgiven."""
    eta_seconds: float | None = None
    """Expected seconds until the run is done."""
    last_step_time: AwareDatetime | None = None
    """When the operator last saw a new step."""

    attempt: int = 0
    """Number of the present attempt, or of the next where the last one has ended; from 1, and 0 before the first."""
    gang: GangState = "stopping"
    """How far the pods of the attempt are."""
    attempt_start_time: AwareDatetime | None = None
    """When the pods of the attempt could be created first."""
    attempt_running_time: AwareDatetime | None = None
    """When all pods of the attempt were running first."""
    not_before: AwareDatetime | None = None
    """When the pods of the attempt may be created, after a delay."""
    replacing: dict[str, Replacement] = {}
    """Rollout pods on their way to be replaced alone, by name."""
    failures: Failures = Failures()
    """Failures since the run last got further; compared with the budgets of runPolicy."""
    restarts: int = 0
    """How often the gang was restarted after a failure, in all."""
    last_failure: LastFailure | None = None
    """The failure that was counted last."""

    start_time: AwareDatetime | None = None
    """When the run was started first."""
    running_time: AwareDatetime | None = None
    """When the run was in phase Running first."""
    active_since: AwareDatetime | None = None
    """Since when the run is active without a pause; absent while suspended."""
    active_seconds: float = 0.0
    """Seconds that the run was active before `activeSince`."""
    failed_reason: str | None = None
    """Why the run failed, in one stable word."""
    completion_time: AwareDatetime | None = None
    """When the run ended."""
    accepted_spec: str | None = None
    """The spec that the pods follow, as JSON: the last one that was valid and that the run could be changed to."""

    def condition(self, kind: ConditionType) -> Condition | None:
        """The condition of one type, if it was ever set."""
        return next((condition for condition in self.conditions if condition.type == kind), None)

    @property
    def terminal(self) -> bool:
        """Whether the run has ended for good."""
        return self.phase in TERMINAL

    def to_api(self) -> dict[str, Any]:
        """As plain data for the API server, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def read_status(body: Mapping[str, Any]) -> RunStatus:
    """The status in a SeeleRun's body; that of a new run where there is none.

    Raises pydantic's ValidationError for a status that no operator wrote.
    """
    return RunStatus.model_validate(body.get("status") or {})


def patch_between(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes `after` from `before`: changed keys, and null for keys that are gone."""
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
    """`moment` as precisely as the API server keeps times."""
    return moment.replace(microsecond=0)
