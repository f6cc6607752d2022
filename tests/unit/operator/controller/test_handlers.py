"""kopf's events reach the store, and it is configured to write nothing and never to give up."""

import itertools
from typing import Any

import kopf
import pytest

from seele_operator.controller.handlers import Watch, watch_settings
from seele_operator.controller.store import RunKey, Store
from tests.support.fake_cluster import NAMESPACE
from tests.support.raw_pods import run_pod

KEY = RunKey(NAMESPACE, "first")
RUN: dict[str, Any] = {"metadata": {"namespace": NAMESPACE, "name": "first", "uid": "run-1", "resourceVersion": "5"}}


class RecordedWatch:
    """A watch without a cluster, and what it reported."""

    def __init__(self) -> None:
        self.store = Store()
        self.changed: list[RunKey] = []
        self.listed = 0
        self.logins = 0
        self.watch = Watch(self.store, self.changed.append, self._list, self._login, ())

    def _list(self) -> None:
        self.listed += 1

    async def _login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        return kopf.ConnectionInfo(server="https://127.0.0.1", token="secret")

    async def send(self, kind: str | None, body: dict[str, Any]) -> None:
        on_pod = "labels" in body["metadata"]
        await (self.watch._on_pod if on_pod else self.watch._on_run)(event={"type": kind, "object": body})


def pod(version: str) -> dict[str, Any]:
    return run_pod(resourceVersion=version)


async def test_changes_of_runs_and_pods_reach_the_store_and_the_queue() -> None:
    recorded = RecordedWatch()
    await recorded.send("ADDED", RUN)
    await recorded.send("ADDED", pod("6"))
    await recorded.send("MODIFIED", pod("7"))
    assert recorded.changed == [KEY, KEY, KEY]
    assert len(recorded.store.pods(KEY)) == 1
    await recorded.send("DELETED", pod("8"))
    await recorded.send("DELETED", RUN)
    assert recorded.store.run(KEY) is None
    assert recorded.store.pods(KEY) == ()
    assert len(recorded.changed) == 5


async def test_known_objects_are_ignored() -> None:
    recorded = RecordedWatch()
    recorded.store.put_run(RUN)
    await recorded.send("MODIFIED", RUN)
    assert recorded.changed == []


async def test_a_list_of_the_watch_is_reported() -> None:
    recorded = RecordedWatch()
    await recorded.send("ADDED", RUN)
    assert recorded.listed == 0
    await recorded.send(None, RUN)
    await recorded.send(None, pod("6"))
    assert recorded.listed == 2


def test_all_handlers_are_read_only() -> None:
    registry = RecordedWatch().watch.registry()
    assert len(registry._watching.get_all_handlers()) == 2
    for writing in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(writing.get_all_handlers()) == []


def test_kopf_neither_copies_objects_nor_writes_to_them() -> None:
    kept = watch_settings().persistence
    body = kopf.Body({**RUN, "spec": {"model": "m"}})
    patch = kopf.Patch()
    essence = kept.diffbase_storage.build(body=body)
    assert essence == {}
    assert kept.progress_storage.clear(essence=essence) is essence
    kept.diffbase_storage.store(body=body, patch=patch, essence=essence)
    kept.progress_storage.touch(body=body, patch=patch, value="now")
    kept.progress_storage.store(key="id", record={}, body=body, patch=patch)
    assert patch == {}


async def test_rejected_credentials_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seele_operator.controller.handlers._RELOGIN_SECONDS", 0.0)
    recorded = RecordedWatch()
    first, second = await recorded.watch._log_in(), await recorded.watch._log_in()
    # kopf would reject equal ones.
    assert first != second
    assert first.token == second.token == "secret"


def test_a_watch_never_gives_up_and_never_freezes() -> None:
    settings = watch_settings()
    backoffs = settings.networking.error_backoffs
    assert not isinstance(backoffs, float)
    delays = list(itertools.islice(iter(backoffs), 100))
    assert max(delays) <= 5
    assert len(delays) == 100
    server, client = settings.watching.server_timeout, settings.watching.client_timeout
    assert server is not None
    assert client is not None
    assert settings.watching.inactivity_timeout < server < client
    assert not settings.posting.enabled
    assert settings.scanning.disabled
