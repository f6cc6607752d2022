"""What the operator sees of a run's pods: raw pods of the API server, reduced to the facts that decisions rest on."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from seele_operator.observe.failures import (
    Disruption,
    PodFailure,
    deletion,
    disruption_of,
    failure_of,
    last_words,
    main_container_done,
)
from seele_operator.observe.raw import condition, deletion_asked, entries, mapping, text
from seele_operator.plan import names
from seele_operator.plan.names import Role

__all__ = ["ObservedPod", "Owner", "PodFailure", "PodPhase", "Waiting", "deletion_failure", "observe_pod"]

Owner = Literal["run", "nobody", "other"]
"""Who controls a pod: this very run (by uid), nobody (an orphan that may be adopted), or somebody else."""


PodPhase = Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"]

_NORMAL = ("ContainerCreating", "PodInitializing", "NotYetScheduled")
"""Reasons to wait that every pod has for a while."""


@dataclass(frozen=True)
class Waiting:
    """Why a pod is not running yet, in the words of the scheduler or the kubelet."""

    reason: str
    """Unschedulable, ImagePullBackOff, ErrImagePull, CreateContainerConfigError, ..., or the pod condition's own."""
    message: str

    @property
    def normal(self) -> bool:
        """Whether every pod waits like this for a while, so that it is nothing to complain about."""
        return self.reason in _NORMAL


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
    """Succeeded as soon as the main container has ended well, though sidecars may run on."""
    ready: bool
    scheduled: bool
    terminating_since: datetime | None
    """When its deletion was asked for; the pod exists until the kubelet has stopped it."""
    node: str | None
    ip: str | None
    failure: PodFailure | None
    """Set where phase is Failed, and where a main container ended with an error although the phase lags behind."""
    waiting: Waiting | None
    disruption: Disruption | None = None
    """What the cluster did to the pod or is about to do, where the pod says so; it may still be running."""
    last_words: str = ""
    """What the main container left behind when it ended of its own accord: a trainer's progress, as JSON."""
    lingers: bool = False
    """Whether other containers run on after the main one has ended well, and hold what the pod has of its node."""

    @property
    def terminating(self) -> bool:
        """Whether the pod is on its way out."""
        return self.terminating_since is not None


def observe_pod(body: Mapping[str, Any], run_uid: str) -> ObservedPod | None:
    """The pod in `body`, as seen by the run with `run_uid`; None for a pod without the labels of a run's pod."""
    metadata, status = mapping(body, "metadata"), mapping(body, "status")
    labels = mapping(metadata, "labels")
    name, uid, run, role = text(metadata, "name"), text(metadata, "uid"), text(labels, names.RUN_LABEL), _role(labels)
    index, attempt = _count(labels, names.INDEX_LABEL), _count(labels, names.ATTEMPT_LABEL)
    if not (name and uid and run) or role is None or index is None or attempt is None:
        return None
    owner = _owner(metadata, run_uid)
    if owner == "nobody" and name != names.pod(run, role, index):
        # A copy that somebody made of a pod, labels and all.
        owner = "other"
    failure = failure_of(body)
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
        terminating_since=deletion_asked(body),
        node=node,
        ip=text(status, "podIP") or None,
        failure=failure,
        waiting=_waiting(body, scheduled) if phase in {"Pending", "Running"} and failure is None else None,
        disruption=disruption_of(body),
        last_words=last_words(body),
        lingers=phase == "Succeeded" and _phase(status) not in ("Succeeded", "Failed"),
    )


def deletion_failure(pod: ObservedPod) -> PodFailure:
    """The failure of a pod that is being deleted, or is gone, and whose deletion the operator did not ask for."""
    return deletion(pod.name, pod.disruption)


def _role(labels: Mapping[str, Any]) -> Role | None:
    return next((role for role in get_args(Role) if labels.get(names.ROLE_LABEL) == role), None)


def _count(labels: Mapping[str, Any], label: str) -> int | None:
    value = text(labels, label)
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else None


def _owner(metadata: Mapping[str, Any], run_uid: str) -> Owner:
    for reference in entries(metadata, "ownerReferences"):
        if reference.get("controller") is True:
            return "run" if reference.get("uid") == run_uid else "other"
    return "nobody"


def _phase(status: Mapping[str, Any]) -> PodPhase:
    found = status.get("phase", "Pending")
    return next((phase for phase in get_args(PodPhase) if phase == found), "Unknown")


def _waiting(body: Mapping[str, Any], scheduled: bool) -> Waiting | None:
    if not scheduled:
        return _unscheduled(body)
    found = list(_waiting_containers(mapping(body, "status")))
    return next((waiting for waiting in found if not waiting.normal), next(iter(found), None))


def _unscheduled(body: Mapping[str, Any]) -> Waiting:
    said = condition(body, "PodScheduled")
    if text(said, "reason"):
        return Waiting(text(said, "reason"), text(said, "message"))
    scheduler = text(mapping(body, "spec"), "schedulerName") or "default-scheduler"
    return Waiting("NotYetScheduled", f"scheduler {scheduler} has not looked at the pod yet")


def _waiting_containers(status: Mapping[str, Any]) -> Iterator[Waiting]:
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in entries(status, kind):
            state = mapping(container, "state", "waiting")
            if state:
                reason = text(state, "reason") or "ContainerCreating"
                said = text(state, "message")
                yield Waiting(reason, f"container {text(container, 'name')}: {said or reason}")
