"""Everything is listed again when a watch may have missed something."""

import asyncio

import pytest

from seele_operator.controller import resync as resync_module
from seele_operator.controller.resync import Resync
from seele_operator.controller.store import RunKey, Store
from seele_operator.kube.errors import ClusterUnavailable, Conflict
from tests.support.fake_cluster import NAMESPACE, FakeCluster

KEY = RunKey(NAMESPACE, "first")


def resync_of(cluster: FakeCluster, news: asyncio.Queue[RunKey]) -> tuple[Resync, Store]:
    store = Store()
    return Resync(cluster, store, (), news.put_nowait), store  # type: ignore[arg-type]


async def test_a_missed_deletion_is_noticed_soon_after_a_watch_has_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resync_module, "SETTLE_SECONDS", 0.01)
    cluster, news = FakeCluster(), asyncio.Queue[RunKey]()
    cluster.add("SeeleRun", {"metadata": {"name": "first"}, "spec": {}})
    resync, store = resync_of(cluster, news)
    await resync.everything()
    assert news.get_nowait() == KEY
    cluster.remove("SeeleRun/first")
    task = asyncio.create_task(resync.run())
    await asyncio.sleep(0)
    resync.soon()
    assert await asyncio.wait_for(news.get(), 5) == KEY
    assert store.run(KEY) is None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_failed_list_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync_module, "SETTLE_SECONDS", 0.01)
    monkeypatch.setattr(resync_module, "FAILED_SECONDS", 0.01)
    cluster, news = FakeCluster(), asyncio.Queue[RunKey]()
    cluster.add("SeeleRun", {"metadata": {"name": "first"}, "spec": {}})
    failures = [ClusterUnavailable("away"), Conflict("changed"), ClusterUnavailable("away")]

    def away(request: tuple[str, str]) -> None:
        if failures:
            raise failures.pop()

    cluster.before = away
    resync, _ = resync_of(cluster, news)
    resync.soon()
    task = asyncio.create_task(resync.run())
    assert await asyncio.wait_for(news.get(), 5) == KEY
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_can_be_cancelled_while_a_watch_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resync_module, "SETTLE_SECONDS", 60.0)
    resync, _ = resync_of(FakeCluster(), asyncio.Queue())
    for _ in range(20):
        task = asyncio.create_task(resync.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The event and the cancellation in the same turn of the loop.
        resync.soon()
        task.cancel()
        async with asyncio.timeout(1):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
