"""The trainer passes on vLLM's own metrics."""

import asyncio
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families as parse_text

from seele_trainer.rollout.protocol import RolloutServer, ServerState
from seele_trainer.telemetry import rollout_metrics
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.telemetry.rollout_metrics import SHARED_SECONDS, SharedAnswer
from seele_trainer.telemetry.server import TelemetryServer
from tests.support.run_folder import run_config

ANSWER = """\
# HELP python_gc_objects_collected_total Objects collected during gc
# TYPE python_gc_objects_collected_total counter
python_gc_objects_collected_total{generation="0"} 13170.0
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="seele"} RUNNING
# HELP vllm:generation_tokens_total Number of generation tokens processed.
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="seele"} 2048.0
# HELP vllm:generation_tokens_created Number of generation tokens processed.
# TYPE vllm:generation_tokens_created gauge
vllm:generation_tokens_created{engine="0",model_name="seele"} 1.7e+09
# HELP vllm:time_to_first_token_seconds Histogram of time to first token in seconds.
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="seele"} 3.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="seele"} 4.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="seele"} 4.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="seele"} 0.25
# HELP http_requests_total Total number of requests by method, status and handler.
# TYPE http_requests_total counter
http_requests_total{handler="/health",method="GET",status="2xx"} 3.0
"""


class Servers:
    """Servers that answer /metrics with a text, or never if it is None."""

    def __init__(self) -> None:
        self.requests = 0
        self._runners: list[web.AppRunner] = []

    async def start(self, text: str | None, status: int = 200) -> str:
        async def answer(_: web.Request) -> web.Response:
            self.requests += 1
            if text is None:
                await asyncio.sleep(60)
            return web.Response(text=text, status=status)

        application = web.Application()
        application.router.add_get("/metrics", answer)
        runner = web.AppRunner(application, shutdown_timeout=0.05, handler_cancellation=True)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()


def running(count: int) -> str:
    return ANSWER.replace("RUNNING", f"{count}.0")


async def values(
    servers: Sequence[RolloutServer], name: str, seconds: float = rollout_metrics.ANSWER_SECONDS
) -> dict[str, float]:
    """Value of a gauge by the label `server`."""
    families = await asyncio.to_thread(rollout_metrics.collect, servers, seconds)
    return {
        sample.labels["server"]: sample.value
        for family in families.collect()
        for sample in family.samples
        if sample.name == name
    }


async def test_metrics_of_all_servers_are_passed_on_with_the_position_of_each() -> None:
    servers = Servers()
    listed = [RolloutServer(await servers.start(running(count)), "ready") for count in (5, 7)]
    try:
        assert await values(listed, "vllm:num_requests_running") == {"0": 5, "1": 7}
        assert await values(listed, "vllm:time_to_first_token_seconds_count") == {"0": 4, "1": 4}
        families = list((await asyncio.to_thread(rollout_metrics.collect, listed)).collect())
    finally:
        await servers.stop()
    # Each family once, with vLLM's type and help, and no families of other libraries.
    assert [(family.name, family.type) for family in families] == [
        ("vllm:num_requests_running", "gauge"),
        ("vllm:generation_tokens", "counter"),
        ("vllm:time_to_first_token_seconds", "histogram"),
    ]
    assert families[1].documentation == "Number of generation tokens processed."
    assert families[0].samples[0].labels == {"engine": "0", "model_name": "seele", "server": "0"}


@pytest.mark.parametrize("state", ["starting", "down"])
async def test_a_server_that_is_not_in_use_is_not_queried(state: ServerState) -> None:
    servers = Servers()
    listed = [
        RolloutServer(await servers.start(running(5)), state),
        RolloutServer(await servers.start(running(7)), "ready"),
    ]
    try:
        # It keeps its position in the list: the other server is still number 1.
        assert await values(listed, "vllm:num_requests_running") == {"1": 7}
        assert servers.requests == 1
    finally:
        await servers.stop()


async def test_servers_that_fail_are_skipped_and_delay_no_other() -> None:
    servers = Servers()
    broken = [
        await servers.start(None),
        await servers.start(None),
        "http://127.0.0.1:9",
        await servers.start(running(1), status=500),
        await servers.start("vllm:num_requests_running{{{ 1\n"),
        await servers.start("vllm:" + "x" * rollout_metrics.MAX_ANSWER_BYTES),
    ]
    listed = [RolloutServer(url, "ready") for url in (*broken, await servers.start(running(7)))]
    try:
        began = time.monotonic()
        assert await values(listed, "vllm:num_requests_running", seconds=0.5) == {"6": 7}
        assert time.monotonic() - began < 5
    finally:
        await servers.stop()


async def test_without_servers_the_answer_is_empty() -> None:
    assert list(rollout_metrics.collect(()).collect()) == []


class SlowFetch:
    """A fetch that lasts until it is released, and a manual clock that counts how often it is read."""

    def __init__(self) -> None:
        self.now = 100.0
        self.fetches = 0
        self.readings = threading.Semaphore(0)
        self.started = threading.Event()
        self.released = threading.Event()

    def clock(self) -> float:
        now = self.now
        self.readings.release()
        return now

    def fetch(self) -> bytes:
        self.fetches += 1
        self.started.set()
        assert self.released.wait(10)
        return f"answer {self.fetches}".encode()


@pytest.mark.parametrize("seconds", [0, 2 * SHARED_SECONDS], ids=["quick", "slower than an answer is kept"])
def test_a_request_during_a_fetch_waits_and_gets_its_answer(seconds: float) -> None:
    slow = SlowFetch()
    shared = SharedAnswer(slow.fetch, clock=slow.clock)
    with ThreadPoolExecutor() as threads:
        first = threads.submit(shared.get)
        assert slow.started.wait(10)
        while slow.readings.acquire(blocking=False):
            pass
        slow.now += seconds / 2
        second = threads.submit(shared.get)
        # The request has begun once it has read the clock.
        assert slow.readings.acquire(timeout=10)
        slow.now += seconds / 2
        assert not second.done()
        slow.released.set()
        assert (first.result(10), second.result(10)) == (b"answer 1", b"answer 1")
    assert slow.fetches == 1


def test_an_answer_is_shared_for_some_seconds_and_then_fetched_again() -> None:
    slow = SlowFetch()
    slow.released.set()
    shared = SharedAnswer(slow.fetch, seconds=3, clock=slow.clock)
    answers = []
    for slow.now in (100.0, 102.9, 103.0, 105.9, 106.0):
        answers.append(shared.get())
    assert answers == [b"answer 1", b"answer 1", b"answer 2", b"answer 2", b"answer 3"]


def test_after_a_failed_fetch_the_next_request_fetches_again() -> None:
    attempts = iter([OSError("no memory"), b"answer"])

    def fetch() -> bytes:
        if isinstance(one := next(attempts), OSError):
            raise one
        return one

    shared = SharedAnswer(fetch)
    with pytest.raises(OSError, match="no memory"):
        shared.get()
    assert shared.get() == b"answer"


async def test_the_trainer_serves_them_next_to_its_own(tmp_path: Path) -> None:
    servers = Servers()
    listed: list[RolloutServer] = []
    config = run_config(observability={"tensorboard": False})
    now = 0.0

    def get(accept: str) -> str:
        url = f"http://127.0.0.1:{server.port}/rollout/metrics"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
            return str(answer.read().decode())

    with (
        Recorder(tmp_path, config) as recorder,
        TelemetryServer(recorder, "127.0.0.1", 0, clock=lambda: now) as server,
    ):
        try:
            assert await asyncio.to_thread(get, "text/plain") == ""
            recorder.watch_servers(lambda: listed)
            now += SHARED_SECONDS
            assert await asyncio.to_thread(get, "text/plain") == ""
            # The list may change during the run.
            listed.append(RolloutServer(await servers.start(running(5)), "ready"))
            now += SHARED_SECONDS
            text = await asyncio.to_thread(get, "text/plain")
            assert {sample.name for family in parse_text(text) for sample in family.samples} == {
                "vllm:num_requests_running",
                "vllm:generation_tokens_total",
                *(f"vllm:time_to_first_token_seconds_{part}" for part in ("bucket", "count", "sum")),
            }
            assert 'server="0"' in text
            # Prometheus prefers OpenMetrics. A second scrape at the same moment does not reach the server.
            assert await asyncio.to_thread(get, "application/openmetrics-text; version=1.0.0") == text
            assert servers.requests == 1
            listed.clear()
            now += SHARED_SECONDS
            assert await asyncio.to_thread(get, "text/plain") == ""
        finally:
            await servers.stop()
