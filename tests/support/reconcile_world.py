"""One operator's passes over a run on a fake cluster."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from seele_operator.controller.gate import Gate
from seele_operator.controller.metrics import OperatorMetrics
from seele_operator.controller.reconcile import Reconciler
from seele_operator.controller.resync import Resync
from seele_operator.controller.store import RunKey, Store
from seele_operator.controller.workqueue import WorkQueue
from seele_operator.kube.errors import ClusterUnavailable
from tests.support.fake_cluster import NAMESPACE, Body, FakeCluster

KEY = RunKey(NAMESPACE, "first")
RUN = "SeeleRun/first"
TRAINER, ROLLOUT = "Pod/first-trainer-0", "Pod/first-rollout-0"


class World:
    """One operator on a fake cluster, with immediate watches."""

    def __init__(self, cluster: FakeCluster | None = None, clock: Callable[[], datetime] | None = None) -> None:
        self.cluster = cluster or FakeCluster()
        self.store = Store()
        self.queue: WorkQueue[RunKey] = WorkQueue()
        self.metrics = OperatorMetrics()
        self.now = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)

        async def probe() -> None:
            raise ClusterUnavailable("still away")

        self.gate = Gate(probe)
        self.reconciler = Reconciler(
            self.cluster,  # type: ignore[arg-type]
            self.store,
            self.queue,
            self.gate,
            self.metrics,
            lambda uid: None,
            clock or (lambda: self.now),
        )

    async def watch(self) -> None:
        """Bring the store up to date, as the watches would."""
        await Resync(self.cluster, self.store, (), self.queue.add).everything()  # type: ignore[arg-type]

    async def reconcile(self) -> None:
        await self.reconciler.handle(KEY)

    async def settle(self, passes: int = 8) -> None:
        for _ in range(passes):
            await self.watch()
            await self.reconcile()

    def status(self) -> Body:
        found: Body = self.cluster.objects[RUN].get("status") or {}
        return found

    def errors(self, reason: str) -> float:
        return (
            self.metrics.registry.get_sample_value("seele_operator_reconcile_errors_total", {"reason": reason}) or 0.0
        )


def run_body(**spec: Any) -> Body:
    return {
        "apiVersion": "seele.dev/v1alpha1",
        "metadata": {"name": "first", "namespace": NAMESPACE, "uid": "run-1", "generation": 1},
        "spec": {
            "model": {"name": "Qwen/Qwen2.5-1.5B"},
            "dataset": {"path": "train.jsonl"},
            "storage": {"run": {"hostPath": {"path": "/data"}}},
            **spec,
        },
    }


async def world_with_run(**spec: Any) -> World:
    world = World()
    world.cluster.add("SeeleRun", run_body(**spec))
    await world.watch()
    return world


def start_pods(cluster: FakeCluster) -> None:
    for name in cluster.objects:
        if name.startswith("Pod/"):
            cluster.change(
                name,
                status={"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
            )


async def running_world(**spec: Any) -> World:
    world = await world_with_run(**spec)
    await world.settle(3)
    start_pods(world.cluster)
    await world.settle(2)
    assert world.status()["phase"] == "Running"
    return world


def pods(cluster: FakeCluster) -> list[Body]:
    return [body for name, body in cluster.objects.items() if name.startswith("Pod/")]
