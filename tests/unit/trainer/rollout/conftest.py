"""Fake servers, and pools of them that are closed after a test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from seele_trainer.rollout.pool import VllmPool
from tests.support.fake_vllm import FakeVllm
from tests.support.rollout_pool import CONFIG, until


@pytest.fixture
async def servers() -> AsyncIterator[list[FakeVllm]]:
    three = [FakeVllm(), FakeVllm(), FakeVllm()]
    for server in three:
        await server.start()
    yield three
    for server in three:
        await server.stop()


@pytest.fixture
async def make_pool(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[VllmPool]]]:
    """Start a pool of servers, which follows the file `rollout-urls` by default, and wait until `ready` of them are ready."""
    made: list[VllmPool] = []

    async def make(*servers: FakeVllm, ready: int | None = None, **options: object) -> VllmPool:
        urls = [server.url for server in servers]
        options = {"config": CONFIG, "probe_seconds": 0.05, "list_seconds": 0.02, **options}
        options.setdefault("url_file", tmp_path / "rollout-urls")
        pool = VllmPool(urls, **options)  # type: ignore[arg-type]
        made.append(pool)
        await pool.start()
        await until(lambda: len(pool._servers.ready) >= (len(urls) if ready is None else ready), "ready servers")
        return pool

    yield make
    for pool in made:
        await pool.close()
