"""What the operator sees of a run's pods: raw pods of the API server, reduced to the facts that decisions rest on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from seele_operator.names import Role
from seele_operator.status import FailureClass

Owner = Literal["run", "nobody", "other"]
"""Who controls a pod: this very run (by uid), nobody (an orphan that may be adopted), or somebody else."""


@dataclass(frozen=True)
class PodFailure:
    """Why a pod failed."""

    failure_class: FailureClass
    reason: str
    """One stable word: OOMKilled, Error, BadInput, Evicted, Preempted, NodeLost, PodDeleted, ..."""
    container: str | None
    exit_code: int | None
    message: str
    """In words, with the end of the container's log where the kubelet kept it."""

    @property
    def hopeless(self) -> bool:
        """Whether a restart could not change the outcome: the trainer refused its input (exit code 2)."""
        return self.reason == "BadInput"


@dataclass(frozen=True)
class Waiting:
    """Why a pod is not running yet, in the words of the scheduler or the kubelet."""

    reason: str
    """Unschedulable, ImagePullBackOff, ErrImagePull, CreateContainerConfigError, ..., or the pod condition's own."""
    message: str


@dataclass(frozen=True)
class ObservedPod:
    """One pod of a run, as last seen."""

    name: str
    uid: str
    role: Role
    index: int
    attempt: int
    owner: Owner
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]
    ready: bool
    scheduled: bool
    terminating_since: datetime | None
    """When its deletion was asked for; the pod exists until the kubelet has stopped it."""
    node: str | None
    ip: str | None
    failure: PodFailure | None
    """Set where phase is Failed, and where a main container ended with an error although the phase lags behind."""
    waiting: Waiting | None

    @property
    def terminating(self) -> bool:
        """Whether the pod is on its way out."""
        return self.terminating_since is not None


def observe_pod(body: Mapping[str, Any], run_uid: str) -> ObservedPod | None:
    """The pod in `body`, as seen by the run with `run_uid`; None for a pod without the labels of a run's pod."""
    raise NotImplementedError
