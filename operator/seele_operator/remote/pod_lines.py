"""The pods of a run in words: what each does, or why it does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from rich.text import Text

from seele_operator import names
from seele_operator.names import Manifest, Role
from seele_operator.observe import ObservedPod, observe_pod
from seele_operator.pod_json import entries, mapping, moment, text
from seele_operator.remote.wording import ABSENT, age, table

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
