"""During an outage of the API server, all workers wait for one probe, and it is logged once."""

import asyncio
import logging

import pytest

from seele_operator.controller import gate as backpressure
from seele_operator.controller.gate import Gate
from seele_operator.kube.errors import ClusterUnavailable, Gone, NotLeading


class Server:
    """Fails with `failures`, then answers; counts its requests."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.requests = 0
        self.returned = 0

    async def probe(self) -> None:
        self.requests += 1
        if self.failures:
            raise self.failures.pop(0)

    def gate(self) -> Gate:
        return Gate(self.probe, on_return=self._on_return, jitter=lambda: 0.0)

    def _on_return(self) -> None:
        self.returned += 1


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backpressure, "FIRST_PROBE_SECONDS", 0.01)
    monkeypatch.setattr(backpressure, "MAX_PROBE_INTERVAL_SECONDS", 0.01)


async def test_an_open_gate_lets_workers_pass() -> None:
    async with asyncio.timeout(1):
        await Server().gate().passable()


async def test_all_workers_wait_for_one_probe_and_the_outage_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    server = Server(*(ClusterUnavailable("no connection") for _ in range(4)))
    gate = server.gate()
    for _ in range(8):
        gate.close(ClusterUnavailable("no connection"))
    assert not gate.open
    async with asyncio.timeout(5):
        await asyncio.gather(*(gate.passable() for _ in range(8)))
    assert server.requests == 5
    assert server.returned == 1
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "API server lost: no connection",
        "API server is back after 0 s",
    ]


async def test_a_single_failed_request_is_not_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    gate = server.gate()
    gate.close(ClusterUnavailable("an internal error of one request"))
    async with asyncio.timeout(5):
        await gate.passable()
    assert server.returned == 0
    assert caplog.records == []


async def test_a_server_that_asks_for_time_gets_it() -> None:
    server = Server()
    gate = server.gate()
    gate.close(ClusterUnavailable("too many requests", retry_after=0.2))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(gate.passable(), 0.1)
    assert server.requests == 0
    async with asyncio.timeout(5):
        await gate.passable()


async def test_an_invalid_lease_is_waited_for() -> None:
    server = Server(NotLeading("the lease could not be renewed"), NotLeading("the lease could not be renewed"))
    gate = server.gate()
    gate.close(NotLeading("nothing was sent"))
    async with asyncio.timeout(5):
        await gate.passable()
    assert server.requests == 3


async def test_an_operator_that_is_stopped_does_not_wait() -> None:
    gate = Server(*(ClusterUnavailable("no connection") for _ in range(1000))).gate()
    gate.close(ClusterUnavailable("no connection"))
    await gate.leave_open()
    async with asyncio.timeout(1):
        await gate.passable()


@pytest.mark.parametrize("failure", [Gone("the namespace is gone"), RuntimeError("a bug"), OSError("no token file")])
async def test_unexpected_errors_do_not_keep_the_gate_closed(failure: Exception) -> None:
    server = Server(failure)
    gate = server.gate()
    gate.close(ClusterUnavailable("no connection"))
    async with asyncio.timeout(5):
        await gate.passable()
