"""The pods of a run, sorted by their relation to its current attempt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from seele_operator.api.seelerun import SeeleRun
from seele_operator.observe.pods import ObservedPod
from seele_operator.plan import names


@dataclass(frozen=True)
class RunPods:
    """The pods that a run should have, and those that exist."""

    trainers: tuple[str, ...]
    """Names of the trainer pods that the run needs."""
    rollouts: tuple[str, ...]
    """Names of the rollout pods that the run needs."""
    present: Mapping[str, ObservedPod]
    """The existing pods of the current attempt that the run needs, by name."""
    old: tuple[ObservedPod, ...]
    """The run's pods of other attempts."""
    surplus: tuple[ObservedPod, ...]
    """Rollout pods of the current attempt that the run no longer needs."""
    foreign: tuple[ObservedPod, ...]
    """Pods of other owners under a name that the run needs, and trainers of an earlier run of the same name."""

    @property
    def wanted(self) -> tuple[str, ...]:
        """Names of all pods that the run needs."""
        return (*self.trainers, *self.rollouts)

    @property
    def own(self) -> tuple[ObservedPod, ...]:
        """All pods of the run, of any attempt."""
        return (*self.present.values(), *self.old, *self.surplus)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of wanted pods that do not exist."""
        return tuple(name for name in self.wanted if name not in self.present)

    @property
    def orphans(self) -> tuple[ObservedPod, ...]:
        """Pods of the run without a controller."""
        return tuple(pod for pod in self.own if pod.owner == "none")

    @property
    def all_running(self) -> bool:
        """Whether every wanted pod is running or has succeeded."""
        return not self.missing and all(pod.phase in ("Running", "Succeeded") for pod in self.present.values())

    @property
    def can_save(self) -> bool:
        """Whether all trainers run: saving takes all of them."""
        alive = {pod.name for pod in self.own if pod.phase == "Running" and pod.failure is None and not pod.node_lost}
        return alive.issuperset(self.trainers)

    @property
    def trainer_at_work(self) -> bool:
        """Whether some trainer of the attempt is running or has run."""
        return any(self.present[name].phase != "Pending" for name in self.trainers if name in self.present)

    def is_ready(self, pod_names: Iterable[str]) -> bool:
        """Whether all these pods exist and are ready and not terminating."""
        pods = [self.present.get(name) for name in pod_names]
        return all(pod is not None and pod.ready and not pod.terminating for pod in pods)


def sort_pods(run: SeeleRun, attempt: int, pods: Iterable[ObservedPod]) -> RunPods:
    """Sort the pods with the run's label for its attempt number `attempt`.

    A pod without a controller belongs to the run if it has one of its names: an operator died before adopting it, or a
    deletion left it behind.
    """
    name = run.metadata.name
    trainers = tuple(names.pod(name, "trainer", index) for index in range(run.spec.trainer.replicas))
    rollouts = tuple(names.pod(name, "rollout", index) for index in range(run.spec.rollout.servers))
    wanted = {*trainers, *rollouts}
    present: dict[str, ObservedPod] = {}
    old, surplus, foreign = [], [], []
    for pod in sorted(pods, key=lambda one: one.name):
        own = pod.owner == "run" or (pod.owner == "none" and pod.name == names.pod(name, pod.role, pod.index))
        if not own:
            # A trainer of an earlier run of this name may still write to the folder, even if this run needs fewer trainers.
            if pod.name in wanted or (pod.role == "trainer" and pod.name == names.pod(name, "trainer", pod.index)):
                foreign.append(pod)
        elif pod.attempt != attempt:
            old.append(pod)
        elif pod.name in wanted:
            present[pod.name] = pod
        else:
            surplus.append(pod)
    return RunPods(trainers, rollouts, present, tuple(old), tuple(surplus), tuple(foreign))
