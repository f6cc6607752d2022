"""A run's pods as the operator sees them: the API server's raw pods, reduced to the facts that decisions need."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from seele_operator.observe.failures import (
    Disruption,
    PodFailure,
    main_container_done,
    pod_disruption,
    pod_failure,
    termination_message,
)
from seele_operator.observe.raw import condition, deletion_requested, entries, mapping, text
from seele_operator.plan import names
from seele_operator.plan.names import Role

Owner = Literal["run", "none", "other"]
"""A pod's controller: this run (by uid), none (an orphan that may be adopted), or another object."""

PodPhase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]


@dataclass(frozen=True)
class Waiting:
    """Why a pod is not running yet, as reported by the scheduler or the kubelet."""

    reason: str
    """Unschedulable, ImagePullBackOff, ErrImagePull, CreateContainerConfigError, ..., or that of the pod condition."""
    message: str

    @property
    def normal(self) -> bool:
        """Whether every pod waits for this reason at first."""
        return self.reason in ("ContainerCreating", "PodInitializing", "NotYetScheduled")


@dataclass(frozen=True)
class ObservedPod:
    """One pod of a run, as last seen."""

    name: str
    uid: str
    role: Role
    index: int
    attempt: int
    owner: Owner
    phase: PodPhase
    """Succeeded as soon as the main container has, even if sidecars are still running."""
    ready: bool = False
    scheduled: bool = False
    terminating_since: datetime | None = None
    """When its deletion was requested; the pod exists until the kubelet has stopped it."""
    node: str | None = None
    ip: str | None = None
    failure: PodFailure | None = None
    """Set if the phase is Failed, or if a main container ended with an error and the phase lags behind."""
    waiting: Waiting | None = None
    disruption: Disruption | None = None
    """What the cluster did to the pod or is about to do; it may still be running."""
    termination_message: str = ""
    """That of the main container, if it was not killed by an error: a trainer's progress, as JSON."""
    lingers: bool = False
    """Whether other containers are still running after the main one has succeeded, and hold the node's resources."""

    @property
    def terminating(self) -> bool:
        """Whether the pod is being deleted."""
        return self.terminating_since is not None

    @property
    def node_lost(self) -> bool:
        """Whether its node does not answer."""
        return self.disruption is not None and self.disruption.reason == "NodeLost"


def observe_pod(body: Mapping[str, Any], run_uid: str) -> ObservedPod | None:
    """The pod in `body`, as seen by the run with `run_uid`; None if it lacks the labels of a run's pod."""
    metadata, status = mapping(body, "metadata"), mapping(body, "status")
    labels = mapping(metadata, "labels")
    name, uid, run, role = text(metadata, "name"), text(metadata, "uid"), text(labels, names.RUN_LABEL), _role(labels)
    index, attempt = _count(labels, names.INDEX_LABEL), _count(labels, names.ATTEMPT_LABEL)
    if not (name and uid and run) or role is None or index is None or attempt is None:
        return None
    owner = _owner(metadata, run_uid)
    if owner == "none" and name != names.pod(run, role, index):
        owner = "other"  # a copy of a pod, made by hand with all its labels
    failure = pod_failure(body)
    phase: PodPhase = "Succeeded" if failure is None and main_container_done(body) else _phase(status)
    node = text(mapping(body, "spec"), "nodeName") or None
    scheduled = node is not None or condition(body, "PodScheduled").get("status") == "True"
    return ObservedPod(
        name=name,
        uid=uid,
        role=role,
        index=index,
        attempt=attempt,
        owner=owner,
        phase=phase,
        ready=condition(body, "Ready").get("status") == "True",
        scheduled=scheduled,
        terminating_since=deletion_requested(body),
        node=node,
        ip=text(status, "podIP") or None,
        failure=failure,
        waiting=_waiting(body, scheduled) if phase in {"Pending", "Running"} and failure is None else None,
        disruption=pod_disruption(body),
        termination_message=termination_message(body),
        lingers=phase == "Succeeded" and _phase(status) not in ("Succeeded", "Failed"),
    )


def explained(pod: ObservedPod, log: str) -> ObservedPod:
    """The pod with its failure as the container's log explains it."""
    return pod if pod.failure is None else replace(pod, failure=pod.failure.with_log(log))


def deletion_failure(pod: ObservedPod) -> PodFailure:
    """The failure of a pod that is being or was deleted, but not by the operator."""
    if pod.disruption is not None:
        return PodFailure("disruption", pod.disruption.reason, None, None, f"pod {pod.name}: {pod.disruption.message}")
    return PodFailure("disruption", "PodDeleted", None, None, f"pod {pod.name} was deleted, and not by the operator")


def _role(labels: Mapping[str, Any]) -> Role | None:
    return next((role for role in get_args(Role) if labels.get(names.ROLE_LABEL) == role), None)


def _count(labels: Mapping[str, Any], label: str) -> int | None:
    value = text(labels, label)
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else None


def _owner(metadata: Mapping[str, Any], run_uid: str) -> Owner:
    for reference in entries(metadata, "ownerReferences"):
        if reference.get("controller") is True:
            return "run" if reference.get("uid") == run_uid else "other"
    return "none"


def _phase(status: Mapping[str, Any]) -> PodPhase:
    found = status.get("phase", "Pending")
    return next((phase for phase in get_args(PodPhase) if phase == found), "Unknown")


def _waiting(body: Mapping[str, Any], scheduled: bool) -> Waiting | None:
    if not scheduled:
        return _unscheduled(body)
    found = list(_waiting_containers(mapping(body, "status")))
    return next((waiting for waiting in found if not waiting.normal), next(iter(found), None))


def _unscheduled(body: Mapping[str, Any]) -> Waiting:
    scheduled = condition(body, "PodScheduled")
    if text(scheduled, "reason"):
        return Waiting(text(scheduled, "reason"), text(scheduled, "message"))
    scheduler = text(mapping(body, "spec"), "schedulerName") or "default-scheduler"
    return Waiting("NotYetScheduled", f"scheduler {scheduler} has not looked at the pod yet")


def _waiting_containers(status: Mapping[str, Any]) -> Iterator[Waiting]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in entries(status, kind):
            state = mapping(container, "state", "waiting")
            if state:
                reason = text(state, "reason") or "ContainerCreating"
                yield Waiting(reason, f"container {text(container, 'name')}: {text(state, 'message') or reason}")
