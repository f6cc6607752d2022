"""The operator's HTTP endpoints."""

import asyncio
from typing import Any

import aiohttp
import pytest

from seele_operator.controller import health as health_module
from seele_operator.controller.gate import Gate
from seele_operator.controller.health import Health, serving
from seele_operator.controller.metrics import OperatorMetrics
from seele_operator.controller.store import RunKey
from seele_operator.controller.workqueue import WorkQueue
from seele_operator.kube.errors import ClusterUnavailable
from tests.support.control_plane import free_port

KEY = RunKey("lab", "first")


def gate() -> Gate:
    async def probe() -> None:
        raise ClusterUnavailable("away")

    return Gate(probe)


async def answer(health: Health, path: str, metrics: OperatorMetrics | None = None) -> tuple[int, str]:
    port = free_port()
    async with (
        serving(health, metrics or OperatorMetrics(), port),
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}") as response,
    ):
        return response.status, await response.text()


async def test_a_starting_operator_is_alive_but_not_ready() -> None:
    health = Health()
    health.not_ready("is waiting for the API server")
    assert await answer(health, "/healthz") == (200, "ok\n")
    assert await answer(health, "/readyz") == (503, "is waiting for the API server\n")


async def test_a_standby_is_alive_and_ready() -> None:
    health = Health()
    health.standby()
    assert await answer(health, "/healthz") == (200, "ok\n")
    assert await answer(health, "/readyz") == (200, "ok\n")


async def test_a_leader_is_ready_when_it_knows_the_runs() -> None:
    health = Health()
    health.standby()
    health.not_ready("is listing the runs")
    assert (await answer(health, "/readyz"))[0] == 503
    health.working(WorkQueue(), gate())
    assert (await answer(health, "/readyz"))[0] == 200


async def test_a_pass_that_does_not_end_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    queue: WorkQueue[RunKey] = WorkQueue()
    health = Health()
    health.working(queue, gate())
    queue.add(KEY)
    await queue.get()
    assert (await answer(health, "/healthz"))[0] == 200
    monkeypatch.setattr(health_module, "STUCK_SECONDS", 0.01)
    await asyncio.sleep(0.02)
    status, text = await answer(health, "/healthz")
    assert status == 503
    assert "a pass over a run has taken" in text


async def test_a_run_that_waits_too_long_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "STUCK_SECONDS", 0.01)
    queue: WorkQueue[RunKey] = WorkQueue()
    health = Health()
    health.working(queue, gate())
    queue.add(KEY)
    await asyncio.sleep(0.02)
    assert (await answer(health, "/healthz"))[0] == 503


async def test_an_outage_of_the_api_server_is_healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "STUCK_SECONDS", 0.01)
    queue: WorkQueue[RunKey] = WorkQueue()
    closed = gate()
    health = Health()
    health.working(queue, closed)
    queue.add(KEY)
    closed.close(ClusterUnavailable("away"))
    await asyncio.sleep(0.02)
    assert (await answer(health, "/healthz"))[0] == 200
    await closed.leave_open()


async def test_a_used_port_is_an_error() -> None:
    port = free_port()
    async with serving(Health(), OperatorMetrics(), port):
        with pytest.raises(OSError, match=str(port)):
            async with serving(Health(), OperatorMetrics(), port):
                pass


async def test_metrics_are_served() -> None:
    metrics = OperatorMetrics()
    runs: list[dict[str, Any]] = [{"status": {"phase": "Running"}}, {"status": {"phase": "Running"}}, {}]
    metrics.watch_runs(lambda: runs, lambda: 7)
    metrics.leader.set(1)
    status, text = await answer(Health(), "/metrics", metrics)
    assert status == 200
    lines = text.splitlines()
    assert 'seele_operator_runs{phase="Running"} 2.0' in lines
    assert 'seele_operator_runs{phase="Pending"} 1.0' in lines
    assert 'seele_operator_runs{phase="Failed"} 0.0' in lines
    assert "seele_operator_queue_depth 7.0" in lines
    assert "seele_operator_leader 1.0" in lines
    assert 'seele_operator_restarts_total{class="disruption"} 0.0' in lines
