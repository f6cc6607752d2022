"""kopf as a messenger: what it hears reaches the store, and it is set up to write nothing and never to give up."""

from __future__ import annotations

import itertools
from typing import Any

import kopf
import pytest

from seele_operator.controller.handlers import Watch, watch_settings
from seele_operator.controller.store import RunKey, Store
from tests.support.fake_cluster import NAMESPACE
from tests.support.raw_pods import run_pod

pytestmark = pytest.mark.unit

KEY = RunKey(NAMESPACE, "first")
RUN: dict[str, Any] = {"metadata": {"namespace": NAMESPACE, "name": "first", "uid": "run-1", "resourceVersion": "5"}}


class Heard:
    """A watch on nothing, and what it passed on."""

    def __init__(self) -> None:
        self.store = Store()
        self.news: list[RunKey] = []
        self.listed = 0
        self.logins = 0
        self.watch = Watch(self.store, self.news.append, self._list, self._login, ())

    def _list(self) -> None:
        self.listed += 1

    async def _login(self) -> kopf.ConnectionInfo:
        self.logins += 1
        return kopf.ConnectionInfo(server="https://127.0.0.1", token="secret")

    async def tell(self, kind: str | None, body: dict[str, Any]) -> None:
        on_pod = "labels" in body["metadata"]
        await (self.watch._on_pod if on_pod else self.watch._on_run)(event={"type": kind, "object": body})


def pod(version: str) -> dict[str, Any]:
    return run_pod(resourceVersion=version)


async def test_what_happens_to_runs_and_pods_reaches_the_store_and_the_queue() -> None:
    heard = Heard()
    await heard.tell("ADDED", RUN)
    await heard.tell("ADDED", pod("6"))
    await heard.tell("MODIFIED", pod("7"))
    assert heard.news == [KEY, KEY, KEY]
    assert len(heard.store.pods(KEY)) == 1
    await heard.tell("DELETED", pod("8"))
    await heard.tell("DELETED", RUN)
    assert heard.store.run(KEY) is None
    assert heard.store.pods(KEY) == ()
    assert len(heard.news) == 5


async def test_what_is_known_already_is_no_news() -> None:
    heard = Heard()
    heard.store.put_run(RUN)
    await heard.tell("MODIFIED", RUN)
    assert heard.news == []


async def test_a_list_of_the_watch_asks_for_a_look_at_everything() -> None:
    heard = Heard()
    await heard.tell("ADDED", RUN)
    assert heard.listed == 0
    await heard.tell(None, RUN)
    await heard.tell(None, pod("6"))
    assert heard.listed == 2


def test_there_are_only_handlers_that_write_nothing() -> None:
    registry = Heard().watch.registry()
    assert len(registry._watching.get_all_handlers()) == 2
    for writing in (registry._changing, registry._spawning, registry._indexing, registry._webhooks):
        assert list(writing.get_all_handlers()) == []


def test_kopf_neither_copies_what_it_hears_of_nor_stores_anything_in_it() -> None:
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


async def test_credentials_that_were_refused_once_are_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seele_operator.controller.handlers._RELOGIN_SECONDS", 0.0)
    heard = Heard()
    first, second = await heard.watch._log_in(), await heard.watch._log_in()
    # To kopf, equal ones would be as invalid as those before.
    assert first != second
    assert first.token == second.token == "secret"


def test_a_watch_is_never_given_up_and_never_frozen() -> None:
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
