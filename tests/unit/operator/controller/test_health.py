"""The operator's HTTP endpoints."""

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


@pytest.mark.parametrize(
    ("reason", "ready"),
    [("is waiting for the API server", (503, "is waiting for the API server\n")), ("", (200, "ok\n"))],
    ids=["starting", "standby"],
)
async def test_an_operator_that_does_not_lead_is_alive(reason: str, ready: tuple[int, str]) -> None:
    health = Health()
    health.not_ready(reason) if reason else health.standby()
    assert await answer(health, "/healthz") == (200, "ok\n")
    assert await answer(health, "/readyz") == ready


async def test_a_leader_is_ready_when_it_knows_the_runs() -> None:
    health = Health()
    health.standby()
    health.not_ready("is listing the runs")
    assert (await answer(health, "/readyz"))[0] == 503
    health.working(WorkQueue(), gate())
    assert (await answer(health, "/readyz"))[0] == 200


@pytest.mark.parametrize(("taken", "said"), [(True, "a pass over a run has taken"), (False, "a run has waited")])
async def test_a_run_that_waits_or_works_too_long_is_unhealthy_except_in_an_outage(
    monkeypatch: pytest.MonkeyPatch, taken: bool, said: str
) -> None:
    queue: WorkQueue[RunKey] = WorkQueue()
    health, api_server = Health(), gate()
    health.working(queue, api_server)
    queue.add(KEY)
    if taken:
        await queue.get()
    assert (await answer(health, "/healthz"))[0] == 200
    monkeypatch.setattr(health_module, "STUCK_SECONDS", 0.0)
    status, text = await answer(health, "/healthz")
    assert (status, said in text) == (503, True)
    api_server.close(ClusterUnavailable("away"))
    assert (await answer(health, "/healthz"))[0] == 200
    await api_server.leave_open()


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
