"""A simulated cluster of pods and a clock, to test `decide` without an API server."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from seele_operator.api.events import Refusal
from seele_operator.api.status import RunStatus, read_status
from seele_operator.decide.decide import decide
from seele_operator.decide.decision import AdoptPods, CreatePods, Decision, DeletePods, DeleteRun, Observed
from seele_operator.observe.failures import PodFailure
from seele_operator.observe.pods import ObservedPod
from seele_operator.observe.trainer import ProgressSeen

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = 40
FAILURES = {
    "error": PodFailure("application", "Error", "trainer", 1, "boom"),
    "oom": PodFailure("application", "OOMKilled", "trainer", 137, ""),
    "evicted": PodFailure("disruption", "Evicted", None, None, "The node was low on resource: memory."),
}


@dataclass
class World:
    """What the API server stores for one run."""

    spec: dict[str, Any]
    now: datetime = START
    generation: int = 1
    stored: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, ObservedPod] = field(default_factory=dict)
    progress: ProgressSeen | None = None
    quota: bool = False
    deleted: bool = False
    created: int = 0

    @property
    def body(self) -> dict[str, Any]:
        return {
            "apiVersion": "seele.dev/v1alpha1",
            "kind": "SeeleRun",
            "metadata": {"name": "r", "namespace": "default", "uid": "u", "generation": self.generation},
            "spec": self.spec,
            "status": self.stored,
        }

    @property
    def status(self) -> RunStatus:
        return read_status(self.body)

    def seen(self) -> Observed:
        refusal = Refusal("QuotaExceeded", "pods: exceeded quota") if self.quota else None
        return Observed(tuple(self.pods.values()), self.progress, refusal)

    def reconcile(self, dies_after: int | None = None) -> Decision:
        """One pass, as in reconcile.py; the operator is killed after `dies_after` actions (0: right after the status)."""
        before = self.status
        decision = decide(self.body, before, self.seen(), self.now)
        if before.terminal:
            assert decision.status.phase == before.phase, "terminal stays terminal"
            assert not any(isinstance(action, CreatePods) for action in decision.actions)
        assert decision.status.attempt >= before.attempt
        self.stored = json.loads(json.dumps(decision.status.to_api()))
        for number, action in enumerate(decision.actions):
            if dies_after is not None and number >= dies_after:
                break
            self.carry_out(action)
        return decision

    def carry_out(self, action: object) -> None:
        if isinstance(action, CreatePods):
            for name in action.names:
                if self.quota or name in self.pods:
                    continue
                others = {pod.attempt for pod in self.pods.values()} - {action.attempt}
                assert not others, f"{name} of attempt {action.attempt} next to pods of {others}"
                assert action.attempt == self.status.attempt
                self.created += 1
                _, role, index = name.split("-")
                self.pods[name] = ObservedPod(
                    name=name,
                    uid=f"{name}-{self.created}",
                    role=role,  # type: ignore[arg-type]
                    index=int(index),
                    attempt=action.attempt,
                    owner="run",
                    phase="Pending",
                )
        elif isinstance(action, DeletePods):
            for pod in action.pods:
                if pod.name in self.pods and self.pods[pod.name].uid == pod.uid:
                    self.change(pod.name, terminating_since=self.now)
        elif isinstance(action, AdoptPods):
            for pod in action.pods:
                self.change(pod.name, owner="run")
        elif isinstance(action, DeleteRun):
            assert self.status.terminal
            self.deleted = True

    def edit(self, section: str, **fields: Any) -> None:
        """Edit fields of a section of the spec."""
        self.spec[section] = {**self.spec.get(section, {}), **fields}
        self.generation += 1

    def change(self, name: str, **facts: Any) -> None:
        """Change facts about a pod."""
        self.pods[name] = replace(self.pods[name], **facts)

    def kubelet(self) -> None:
        """Advance each pod by one step: deleted, scheduled, running, ready."""
        for name, pod in list(self.pods.items()):
            if pod.terminating:
                del self.pods[name]
            elif pod.phase == "Pending" and not pod.scheduled:
                self.change(name, scheduled=True, node="n")
            elif pod.phase == "Pending":
                self.change(name, phase="Running", ip="10.0.0.1")
            elif pod.phase == "Running":
                self.change(name, ready=True)

    def train(self, steps: int) -> None:
        trainer = self.pods.get("r-trainer-0")
        if trainer is None or trainer.phase != "Running" or trainer.terminating:
            return
        saved = self.status.last_checkpoint.step if self.status.last_checkpoint else 0
        done = self.progress.step if self.progress and self.progress.attempt == trainer.attempt else saved
        done = min(STEPS, done + steps)
        self.progress = ProgressSeen(
            attempt=trainer.attempt, step=done, steps=STEPS, phase="train", last_checkpoint_step=done // 10 * 10 or None
        )
        if done == STEPS:
            for name, pod in self.pods.items():
                if pod.role == "trainer":
                    self.change(name, phase="Succeeded", ready=False)


def new_world(trainers: int, policy: dict[str, Any]) -> World:
    return World(
        {
            "model": {"name": "m"},
            "dataset": {"name": "d"},
            "training": {"steps": STEPS, "learningRate": 1e-6},
            "trainer": {"replicas": trainers},
            "rollout": {"replicas": 2},
            "storage": {"run": {"hostPath": {"path": "/data"}}},
            "runPolicy": dict(policy),
        }
    )


def started(trainers: int = 1, **policy: Any) -> World:
    """A run in phase Running."""
    return start(new_world(trainers, policy))


def start(world: World) -> World:
    """Follow a new run until it is in phase Running."""
    world.reconcile()
    for _ in range(3):
        world.kubelet()
        world.reconcile()
    assert world.status.phase == "Running"
    return world


def kinds(decision: Decision) -> list[str]:
    """The actions of a decision, by name."""
    return [type(action).__name__ for action in decision.actions]


def answer(world: World, kind: str) -> tuple[str, str]:
    """Status and reason of a condition."""
    condition = world.status.condition(kind)  # type: ignore[arg-type]
    assert condition is not None
    return condition.status, condition.reason


def happen_to_trainer(world: World, kind: str, index: int = 0) -> None:
    """Make a trainer fail in one of the ways of FAILURES."""
    world.change(f"r-trainer-{index}", phase="Failed", ready=False, failure=FAILURES[kind])
