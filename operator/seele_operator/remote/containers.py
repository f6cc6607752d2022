"""The containers of a run's pods, as far as their logs are concerned."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from seele_operator.field_problems import nearest
from seele_operator.names import Role
from seele_operator.pod_failure import MAIN_CONTAINERS
from seele_operator.pod_json import entries, mapping, text
from seele_operator.remote.errors import BadInput
from seele_operator.remote.pod_lines import SeenPod

State = Literal["waiting", "running", "ended"]


@dataclass(frozen=True)
class Container:
    """One container, in the order in which a pod starts them."""

    pod: SeenPod
    name: str
    state: State
    waits_for: str
    """Why it has not started, in the words of the scheduler or the kubelet; empty where another of its pod comes first."""

    @property
    def key(self) -> tuple[str, str]:
        """Which container it is, for good: a pod that is replaced is another one."""
        return self.pod.seen.uid, self.name

    @property
    def label(self) -> str:
        """What stands before its lines: `trainer-0`, and `rollout-0/prepare-model` where it is not the main one."""
        return self.pod.label if self.name in MAIN_CONTAINERS else f"{self.pod.label}/{self.name}"


@dataclass(frozen=True)
class Selection:
    """Which pods are wanted."""

    role: Role | None = None
    pod: str | None = None
    """Name of a pod, with or without that of the run."""

    def includes(self, pod: SeenPod) -> bool:
        """Whether a pod is one of them."""
        return self.role in (None, pod.seen.role) and self.pod in (None, pod.seen.name, pod.label)

    def check(self, pods: Sequence[SeenPod], run: str, *, later: bool) -> None:
        """Raise BadInput for a pod that does not exist, and with `later` cannot come into being either."""
        if self.pod is None or any(self.pod in (pod.seen.name, pod.label) for pod in pods):
            return
        if later and re.fullmatch(rf"({re.escape(run)}-)?(trainer|rollout)-[0-9]+", self.pod):
            return
        labels = [pod.label for pod in pods]
        near = nearest(self.pod, labels)
        remedy = f"did you mean {near}?" if near else f"there are {', '.join(labels)}" if labels else "it has none now"
        raise BadInput(f"--pod: {self.pod} is no pod of {run}; {remedy}")


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
    reason, said = text(own, "reason"), text(own, "message")
    if not reason and pod.seen.waiting is not None:
        reason, said = pod.seen.waiting.reason, pod.seen.waiting.message
    # The main container waits for those before it, and they say why.
    return "" if reason == "PodInitializing" else ": ".join(part for part in (reason, said) if part)


def newest_attempt(pods: Sequence[SeenPod]) -> int:
    """The last attempt that has pods; 0 where there are none."""
    return max((pod.seen.attempt for pod in pods), default=0)
