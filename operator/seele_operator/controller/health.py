"""The operator's HTTP endpoints: /healthz, /readyz and /metrics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from seele_operator.controller.gate import Gate
from seele_operator.controller.metrics import OperatorMetrics
from seele_operator.controller.store import RunKey
from seele_operator.controller.workqueue import WorkQueue

STUCK_SECONDS = 300.0
"""A pass that takes longer, or a run that waits longer for one, means that the operator is stuck."""


class Health:
    """Whether this operator is alive and ready."""

    def __init__(self) -> None:
        self._queue: WorkQueue[RunKey] | None = None
        self._gate: Gate | None = None
        self._starting = "is starting"

    def not_ready(self, reason: str) -> None:
        """Set the reason for not being ready yet."""
        self._starting = reason

    def standby(self) -> None:
        """Ready to take over, without work yet."""
        self._starting = ""

    def working(self, queue: WorkQueue[RunKey], gate: Gate) -> None:
        """Leading, with all runs listed."""
        self._queue, self._gate = queue, gate
        self._starting = ""

    def unready(self) -> str:
        """Why this operator is not ready; empty if it is."""
        return self._starting

    def unwell(self) -> str:
        """Why this operator should be restarted; empty if it should not.

        If the event loop is stuck, there is no answer at all. An outage of the API server is not a reason, since a
        restart would not end it.
        """
        if self._queue is None or self._gate is None or not self._gate.open:
            return ""
        work, wait = self._queue.longest_work(), self._queue.longest_wait()
        if work > STUCK_SECONDS:
            return f"a pass over a run has taken {work:.0f} s so far"
        if wait > STUCK_SECONDS:
            return f"a run has waited {wait:.0f} s for a pass"
        return ""


@asynccontextmanager
async def serving(health: Health, metrics: OperatorMetrics, port: int) -> AsyncIterator[None]:
    """Serve on `port`, over IPv4 and IPv6. Raises OSError if the port is taken."""
    app = web.Application()
    app.router.add_get("/healthz", _answer(health.unwell))
    app.router.add_get("/readyz", _answer(health.unready))
    app.router.add_get("/metrics", _metrics(metrics))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, port=port)
        await site.start()
        yield
    finally:
        await runner.cleanup()


def _answer(problem: Callable[[], str]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        found = problem()
        return web.Response(text=(found or "ok") + "\n", status=503 if found else 200)

    return answer


def _metrics(metrics: OperatorMetrics) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer
