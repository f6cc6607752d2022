"""The pods of a run in words: what each does, or why it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rich.text import Text

from seele_operator.api.problems import nearest
from seele_operator.client.errors import BadInput
from seele_operator.client.wording import ABSENT, age, table
from seele_operator.observe.failures import MAIN_CONTAINERS
from seele_operator.observe.pods import ObservedPod, observe_pod
from seele_operator.observe.raw import entries, mapping, moment, text
from seele_operator.plan import names
from seele_operator.plan.names import Manifest, Role

_ROLES: tuple[Role, ...] = ("trainer", "rollout")


@dataclass(frozen=True)
class SeenPod:
    """One pod of a run, as last seen."""

    seen: ObservedPod
    body: Manifest
    created: datetime | None

    @property
    def label(self) -> str:
        """The pod's name without the run's: `trainer-0`."""
        return names.pod("", self.seen.role, self.seen.index).removeprefix("-")

    @property
    def state(self) -> str:
        """What the pod does, in one word or two."""
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
        """The init container that runs now."""
        found = entries(mapping(self.body, "status"), "initContainerStatuses")
        return next((text(entry, "name") for entry in found if "running" in mapping(entry, "state")), None)

    @property
    def why(self) -> str:
        """Why the pod does not do its work, in the words of the scheduler, the kubelet or its container."""
        if self.seen.failure is not None:
            return self.seen.failure.message
        if self.seen.waiting is not None and self.preparing is None and not self.seen.waiting.normal:
            return self.seen.waiting.message
        return ""


def see_pods(bodies: Sequence[Manifest], run_uid: str) -> list[SeenPod]:
    """The run's own pods, trainers first, in the order of their attempts and numbers."""
    pods = []
    for body in bodies:
        seen = observe_pod(body, run_uid)
        if seen is not None and seen.owner != "other":
            pods.append(SeenPod(seen, body, moment(mapping(body, "metadata"), "creationTimestamp")))
    return sorted(pods, key=lambda pod: (pod.seen.attempt, _ROLES.index(pod.seen.role), pod.seen.index))


def pods_table(pods: Sequence[SeenPod], attempt: int, now: datetime) -> list[Text]:
    """A line for each pod, and below it why it does not work; pods of other attempts say so."""
    header = ("NAME", "STATE", "READY", "NODE", "AGE")
    rows = [
        (
            pod.seen.name + (f" (attempt {pod.seen.attempt})" if pod.seen.attempt != attempt else ""),
            Text(pod.state, _style(pod)),
            "yes" if pod.seen.ready else "no",
            pod.seen.node or ABSENT,
            age(pod.created, now),
        )
        for pod in pods
    ]
    first, *lines = table(header, rows, indent="  ")
    explained = [first]
    for pod, line in zip(pods, lines, strict=True):
        explained.append(line)
        explained += [Text(f"    {part}", "yellow") for part in pod.why.splitlines() if part.strip()]
    return explained


def _style(pod: SeenPod) -> str:
    if pod.seen.failure is not None:
        return "bold red"
    if pod.seen.terminating or (pod.seen.waiting is not None and not pod.seen.waiting.normal):
        return "yellow"
    return "green" if pod.seen.ready or pod.seen.phase == "Succeeded" else ""


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
