"""Schedulers that start all pods of a run together or not at all: what each of them needs on pods and beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from seele_operator.api.seelerun import SeeleRun
from seele_operator.plan import names
from seele_operator.plan.names import Manifest


@dataclass(frozen=True)
class Membership:
    """What makes a pod a member of its gang."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    scheduler: str | None = None
    """Scheduler of the pod, where its template names none."""


class GangScheduler(ABC):
    """One way of scheduling a gang."""

    fixed: bool = False
    """Whether no pod of an attempt can be replaced or added alone, so that the whole gang is made anew."""

    @abstractmethod
    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """What the pods of an attempt carry."""

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """What is made besides the pods, without owner and namespace."""
        return []


class Alone(GangScheduler):
    """The cluster's own scheduler, which places each pod by itself."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """Nothing."""
        return Membership()


class Kueue(GangScheduler):
    """Kueue's groups of plain pods (`integrations.frameworks: [pod]` in its configuration), admitted by quota."""

    # Kueue keeps a pod that failed until another of the group, with another name, has taken its place; and it refuses
    # a group whose pods disagree on its size.
    fixed = True

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """A group for each attempt, because a group that has ended takes no further pods."""
        return Membership(
            labels={
                "kueue.x-k8s.io/queue-name": run.spec.scheduling.queue_name or "",
                "kueue.x-k8s.io/pod-group-name": f"{names.pod_group(run.metadata.name)}-{attempt}",
            },
            annotations={
                "kueue.x-k8s.io/pod-group-total-count": str(gang_size(run)),
                # Without it, the pods of a failed group would be kept, and their quota, for replacements to come.
                "kueue.x-k8s.io/retriable-in-group": "false",
            },
        )


class Volcano(GangScheduler):
    """A PodGroup of Volcano, in its default queue or a named one."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """The name of the group."""
        group = names.pod_group(run.metadata.name)
        return Membership(annotations={"scheduling.k8s.io/group-name": group}, scheduler="volcano")

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """The group."""
        scheduling = run.spec.scheduling
        optional = {"queue": scheduling.queue_name, "priorityClassName": scheduling.priority_class_name}
        spec = {"minMember": gang_size(run), **{name: value for name, value in optional.items() if value is not None}}
        return [_pod_group(run, "scheduling.volcano.sh/v1beta1", spec)]


class Coscheduling(GangScheduler):
    """A PodGroup of the coscheduling plugin of Kubernetes' scheduler-plugins."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """The name of the group."""
        group = names.pod_group(run.metadata.name)
        return Membership(labels={"scheduling.x-k8s.io/pod-group": group}, scheduler="scheduler-plugins-scheduler")

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """The group."""
        return [_pod_group(run, "scheduling.x-k8s.io/v1alpha1", {"minMember": gang_size(run)})]


GANGS: Mapping[str, GangScheduler] = {
    "none": Alone(),
    "kueue": Kueue(),
    "volcano": Volcano(),
    "coscheduling": Coscheduling(),
}
"""By the value of `spec.scheduling.gang`."""


def gang_of(run: SeeleRun) -> GangScheduler:
    """How the pods of `run` are scheduled."""
    return GANGS[run.spec.scheduling.gang]


def gang_size(run: SeeleRun) -> int:
    """Pods that start together: trainers and rollout servers."""
    return run.spec.trainer.replicas + run.spec.rollout.servers


def _pod_group(run: SeeleRun, api_version: str, spec: Manifest) -> Manifest:
    return {
        "apiVersion": api_version,
        "kind": "PodGroup",
        "metadata": {
            "name": names.pod_group(run.metadata.name),
            "labels": names.labels(run.metadata.name),
        },
        "spec": spec,
    }
