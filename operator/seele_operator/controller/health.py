"""What Kubernetes and Prometheus ask the operator: /healthz, /readyz and /metrics."""

from __future__ import annotations

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
"""A pass that takes longer, or a run that waits longer for one, means that the operator stands still."""


class Health:
    """Whether this operator is alive, and whether it is of use."""

    def __init__(self) -> None:
        self._queue: WorkQueue[RunKey] | None = None
        self._gate: Gate | None = None
        self._starting = "has not looked for the other operators yet"

    def waits(self, reason: str) -> None:
        """Not ready yet, for this reason."""
        self._starting = reason

    def stands_by(self) -> None:
        """Ready to take over; there is no work to be stuck in."""
        self._starting = ""

    def works(self, queue: WorkQueue[RunKey], gate: Gate) -> None:
        """Leading, with the runs known."""
        self._queue, self._gate = queue, gate
        self._starting = ""

    def unready(self) -> str:
        """Why this operator is not ready; empty where it is."""
        return self._starting

    def unwell(self) -> str:
        """Why this operator should be restarted; empty where it should not.

        An event loop that stands still does not come to answer this at all. An API server that is away is no reason:
        a restart would not bring it back.
        """
        if self._queue is None or self._gate is None or not self._gate.open:
            return ""
        waits, works = self._queue.longest_wait(), self._queue.longest_work()
        if works > STUCK_SECONDS:
            return f"a pass over a run takes {works:.0f} s so far"
        if waits > STUCK_SECONDS:
            return f"a run has waited {waits:.0f} s for a pass over it"
        return ""


@asynccontextmanager
async def serving(health: Health, metrics: OperatorMetrics, port: int) -> AsyncIterator[None]:
    """Serve on `port`, in IPv4 and IPv6. Raises OSError where it is taken."""
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
        said = problem()
        return web.Response(text=(said or "ok") + "\n", status=503 if said else 200)

    return answer


def _metrics(metrics: OperatorMetrics) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    return answer
