"""Schedulers that start all pods of a run together or not at all: the labels, annotations and extra objects each requires."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

from seele_operator.api.seelerun import SeeleRun
from seele_operator.plan import names
from seele_operator.plan.names import Manifest


@dataclass(frozen=True)
class Membership:
    """The labels, annotations and scheduler that make a pod a member of its gang."""

    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    scheduler: str | None = None
    """The pod's scheduler, unless its template names one."""


class GangScheduler(ABC):
    """A way of scheduling a gang."""

    all_or_nothing: bool = False
    """Whether individual pods of an attempt can be neither replaced nor added, so that the whole gang must be recreated."""

    @abstractmethod
    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """The labels, annotations and scheduler of an attempt's pods."""

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """The extra objects it requires, without owner and namespace."""
        return []


class NoGangScheduler(GangScheduler):
    """The cluster's default scheduler, which places each pod individually."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """No labels, annotations or scheduler."""
        return Membership()


class Kueue(GangScheduler):
    """Kueue's groups of plain pods (`integrations.frameworks: [pod]` in its configuration), admitted within a quota."""

    # Kueue keeps a failed pod until another pod of the group, with another name, replaces it, and rejects a group whose
    # pods disagree on its size.
    all_or_nothing = True

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """One group per attempt, because a group that has ended accepts no more pods."""
        return Membership(
            labels={
                "kueue.x-k8s.io/queue-name": run.spec.scheduling.queue_name or "",
                "kueue.x-k8s.io/pod-group-name": f"{names.pod_group(run.metadata.name)}-{attempt}",
            },
            annotations={
                "kueue.x-k8s.io/pod-group-total-count": str(gang_size(run)),
                # Otherwise Kueue keeps the pods of a failed group, and their quota, and waits for replacements.
                "kueue.x-k8s.io/retriable-in-group": "false",
            },
        )


class Volcano(GangScheduler):
    """A PodGroup of Volcano, in the named queue or its default one."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """The scheduler, and the name of the PodGroup."""
        group = names.pod_group(run.metadata.name)
        return Membership(annotations={"scheduling.k8s.io/group-name": group}, scheduler="volcano")

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """The PodGroup."""
        scheduling = run.spec.scheduling
        optional = {"queue": scheduling.queue_name, "priorityClassName": scheduling.priority_class_name}
        spec = {"minMember": gang_size(run), **{name: value for name, value in optional.items() if value is not None}}
        return [_pod_group(run, "scheduling.volcano.sh/v1beta1", spec)]


class Coscheduling(GangScheduler):
    """A PodGroup of the coscheduling plugin from Kubernetes' scheduler-plugins."""

    def membership(self, run: SeeleRun, attempt: int) -> Membership:
        """The scheduler, and the name of the PodGroup."""
        group = names.pod_group(run.metadata.name)
        return Membership(labels={"scheduling.x-k8s.io/pod-group": group}, scheduler="scheduler-plugins-scheduler")

    def objects(self, run: SeeleRun) -> list[Manifest]:
        """The PodGroup."""
        return [_pod_group(run, "scheduling.x-k8s.io/v1alpha1", {"minMember": gang_size(run)})]


GANG_SCHEDULERS: Mapping[str, GangScheduler] = {
    "none": NoGangScheduler(),
    "kueue": Kueue(),
    "volcano": Volcano(),
    "coscheduling": Coscheduling(),
}
"""By the value of `spec.scheduling.gang`."""


def gang_scheduler_of(run: SeeleRun) -> GangScheduler:
    """The gang scheduler of `run`."""
    return GANG_SCHEDULERS[run.spec.scheduling.gang]


def gang_size(run: SeeleRun) -> int:
    """Number of pods that start together: trainers and rollout servers."""
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
