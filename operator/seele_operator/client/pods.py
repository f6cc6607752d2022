"""The pods of a run and their containers, in words: what each is doing, or why it is not."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from seele_operator.api.types import nearest
from seele_operator.client.errors import BadInput
from seele_operator.observe.failures import MAIN_CONTAINERS
from seele_operator.observe.pods import ObservedPod, observe_pod
from seele_operator.observe.raw import entries, mapping, moment, text
from seele_operator.plan import names
from seele_operator.plan.names import Manifest, Role

_ROLES: tuple[Role, ...] = ("trainer", "rollout")


@dataclass(frozen=True)
class SeenPod:
    """One pod of a run, as last read."""

    seen: ObservedPod
    body: Manifest
    created: datetime | None

    @property
    def label(self) -> str:
        """The pod's name without the run's: `trainer-0`."""
        return names.pod("", self.seen.role, self.seen.index).removeprefix("-")

    @property
    def state(self) -> str:
        """What the pod is doing, in a word or two."""
        if self.seen.terminating:
            return "Terminating"
        if self.seen.failure is not None:
            return self.seen.failure.reason
        preparing = self.preparing
        if preparing is not None:
            return f"Init: {preparing}"
        if self.seen.waiting is not None:
            return self.seen.waiting.reason
        if self.seen.phase == "Running" and not self.seen.ready:
            return "Running, not ready"
        return self.seen.phase

    @property
    def preparing(self) -> str | None:
        """The init container that is running."""
        found = entries(mapping(self.body, "status"), "initContainerStatuses")
        return next((text(entry, "name") for entry in found if "running" in mapping(entry, "state")), None)

    @property
    def why(self) -> str:
        """Why the pod is not working, in the words of the scheduler, the kubelet or its container."""
        if self.seen.failure is not None:
            return self.seen.failure.message
        if self.seen.waiting is not None and self.preparing is None and not self.seen.waiting.normal:
            return self.seen.waiting.message
        return ""


def see_pods(bodies: Sequence[Manifest], run_uid: str) -> list[SeenPod]:
    """The run's own pods by attempt, role (trainers first) and index."""
    pods = []
    for body in bodies:
        seen = observe_pod(body, run_uid)
        if seen is not None and seen.owner != "other":
            pods.append(SeenPod(seen, body, moment(mapping(body, "metadata"), "creationTimestamp")))
    return sorted(pods, key=lambda pod: (pod.seen.attempt, _ROLES.index(pod.seen.role), pod.seen.index))


State = Literal["waiting", "running", "ended"]


@dataclass(frozen=True)
class Container:
    """One container of a pod."""

    pod: SeenPod
    name: str
    state: State
    waits_for: str
    """Why it has not started, in the words of the scheduler or the kubelet; empty if it only waits for another container."""

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the container; one of a replaced pod has another key."""
        return self.pod.seen.uid, self.name

    @property
    def label(self) -> str:
        """The prefix of its lines: `trainer-0`, or `rollout-0/prepare-model` if it is not the main container."""
        return self.pod.label if self.name in MAIN_CONTAINERS else f"{self.pod.label}/{self.name}"


@dataclass(frozen=True)
class Selection:
    """Which pods to show."""

    role: Role | None = None
    pod: str | None = None
    """Name of a pod, with or without the run's name in front."""

    def includes(self, pod: SeenPod) -> bool:
        """Whether to show this pod."""
        return self.role in (None, pod.seen.role) and self.pod in (None, pod.seen.name, pod.label)

    def check(self, pods: Sequence[SeenPod], run: str, *, later: bool) -> None:
        """Raise BadInput if the pod does not exist and, with `later`, could not be created later either."""
        if self.pod is None or any(self.pod in (pod.seen.name, pod.label) for pod in pods):
            return
        if later and re.fullmatch(rf"({re.escape(run)}-)?(trainer|rollout)-[0-9]+", self.pod):
            return
        labels = [pod.label for pod in pods]
        near = nearest(self.pod, labels)
        remedy = f"did you mean {near}?" if near else f"use one of {', '.join(labels)}" if labels else "it has none now"
        raise BadInput(f"--pod: {self.pod} is not a pod of {run}; {remedy}")


def containers(pod: SeenPod) -> Iterator[Container]:
    """All containers of a pod, init containers first."""
    spec, status = mapping(pod.body, "spec"), mapping(pod.body, "status")
    for kind, kept in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        states = {text(entry, "name"): mapping(entry, "state") for entry in entries(status, kept)}
        for entry in entries(spec, kind):
            name = text(entry, "name")
            state = states.get(name, {})
            if "running" in state or "terminated" in state:
                yield Container(pod, name, "running" if "running" in state else "ended", "")
            else:
                yield Container(pod, name, "waiting", _waits_for(pod, mapping(state, "waiting")))


def _waits_for(pod: SeenPod, state: object) -> str:
    if pod.preparing is not None:
        return ""
    own = mapping(state)
    reason, message = text(own, "reason"), text(own, "message")
    if not reason and pod.seen.waiting is not None:
        reason, message = pod.seen.waiting.reason, pod.seen.waiting.message
    # The main container waits for the init containers, which say why.
    return "" if reason == "PodInitializing" else ": ".join(part for part in (reason, message) if part)


def newest_attempt(pods: Sequence[SeenPod]) -> int:
    """The last attempt that has pods; 0 if no pod exists."""
    return max((pod.seen.attempt for pod in pods), default=0)
