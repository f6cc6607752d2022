"""The pods of a run, sorted by what they are to its present attempt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seele_operator.api.seelerun import SeeleRun
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan import names
from seele_operator.plan.objects import rollout_replicas


@dataclass(frozen=True)
class RunPods:
    """Who is there, and who should be."""

    trainers: tuple[str, ...]
    """Names of the trainer pods that the run wants."""
    rollouts: tuple[str, ...]
    """Names of the rollout pods that the run wants."""
    present: Mapping[str, ObservedPod]
    """The wanted pods of the present attempt that exist, by name."""
    old: tuple[ObservedPod, ...]
    """The run's pods of other attempts."""
    surplus: tuple[ObservedPod, ...]
    """Rollout pods of the present attempt that the run wants no longer."""
    foreign: tuple[ObservedPod, ...]
    """Pods of somebody else that have a name which the run wants, and trainers of an earlier run of its name."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all pods that the run wants."""
        return (*self.trainers, *self.rollouts)

    @property
    def everyone(self) -> tuple[ObservedPod, ...]:
        """All pods that are the run's own."""
        return (*self.present.values(), *self.old, *self.surplus)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of wanted pods that do not exist."""
        return tuple(name for name in self.wanted if name not in self.present)

    @property
    def orphans(self) -> tuple[ObservedPod, ...]:
        """Pods of the run that nobody controls."""
        return tuple(pod for pod in self.everyone if pod.owner == "nobody")

    @property
    def all_running(self) -> bool:
        """Whether every wanted pod runs, or has run to its end."""
        return not self.missing and all(pod.phase in ("Running", "Succeeded") for pod in self.present.values())

    @property
    def trainer_at_work(self) -> bool:
        """Whether some trainer of the attempt has come as far as running."""
        return any(self.present[name].phase != "Pending" for name in self.trainers if name in self.present)

    def is_ready(self, pod_names: Iterable[str]) -> bool:
        """Whether all these pods are there, ready and not on their way out."""
        pods = [self.present.get(name) for name in pod_names]
        return all(pod is not None and pod.ready and not pod.terminating for pod in pods)


def sort_pods(run: SeeleRun, attempt: int, pods: Iterable[ObservedPod]) -> RunPods:
    """The pods with the run's label, sorted for its attempt number `attempt`.

    A pod that nobody controls is the run's own if it has one of its names: an orphan of an operator that died, or of a
    deletion that left the pods behind.
    """
    name = run.metadata.name
    trainers = tuple(names.pod(name, "trainer", index) for index in range(run.spec.trainer.replicas))
    rollouts = tuple(names.pod(name, "rollout", index) for index in range(rollout_replicas(run)))
    wanted = {*trainers, *rollouts}
    present: dict[str, ObservedPod] = {}
    old, surplus, foreign = [], [], []
    for pod in sorted(pods, key=lambda one: one.name):
        own = pod.owner == "run" or (pod.owner == "nobody" and pod.name == names.pod(name, pod.role, pod.index))
        if not own:
            # A trainer of an earlier run of this name may still write to the folder, though this run wants fewer of them.
            if pod.name in wanted or (pod.role == "trainer" and pod.name == names.pod(name, "trainer", pod.index)):
                foreign.append(pod)
        elif pod.attempt != attempt:
            old.append(pod)
        elif pod.name in wanted:
            present[pod.name] = pod
        else:
            surplus.append(pod)
    return RunPods(trainers, rollouts, present, tuple(old), tuple(surplus), tuple(foreign))
