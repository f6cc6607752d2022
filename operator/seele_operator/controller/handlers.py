"""kopf's handlers: kopf only watches runs and pods, and what it sees goes into the store and the queue.

Only `on.event` handlers are registered. With change handlers, daemons or timers kopf would write annotations and
finalizers to every object it watches; with event handlers it sends only LIST and WATCH requests.
"""

import asyncio
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import kopf

from seele_operator.api.seelerun import GROUP, PLURAL, VERSION
from seele_operator.controller.store import Body, RunKey, Store
from seele_operator.plan import names

Login = Callable[[], Awaitable[kopf.ConnectionInfo]]
"""Returns the API server's address and the current credentials."""

_RELOGIN_SECONDS = 2.0

_log = logging.getLogger(__name__)


class Watch:
    """Watches runs and pods until cancelled."""

    def __init__(
        self,
        store: Store,
        on_change: Callable[[RunKey], None],
        on_listed: Callable[[], None],
        login: Login,
        namespaces: Sequence[str],
    ) -> None:
        """`on_change` is called with each run that has changed, or one of whose pods has.

        `on_listed` is called for each object of a LIST: kopf lists again after an interruption, but does not report
        objects that were deleted in the meantime.
        """
        self._store = store
        self._on_change = on_change
        self._on_listed = on_listed
        self._login = login
        self._namespaces = namespaces
        self._logins = itertools.count()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Watch until cancelled, or until kopf fails. `started` is called after kopf has installed its signal handlers."""
        before = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            registry=self.registry(),
            settings=watch_settings(),
            standalone=True,
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
        )
        started()
        await kopf.run_tasks(tasks, ignored=before)

    def registry(self) -> kopf.OperatorRegistry:
        """The handlers."""
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry, errors=kopf.ErrorsMode.TEMPORARY, backoff=_RELOGIN_SECONDS)(self._log_in)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._on_run)
        kopf.on.event("v1", "pods", registry=registry)(self._on_pod)
        return registry

    async def _log_in(self, **_: Any) -> kopf.ConnectionInfo:
        times = next(self._logins)
        if times:
            await asyncio.sleep(_RELOGIN_SECONDS)
        info = await self._login()
        # After a 401 kopf rejects credentials that equal the previous ones. But an API server that is starting answers
        # 401 too, and a token may be renewed in its file alone: the priority makes them differ.
        return kopf.ConnectionInfo(**{**vars(info), "priority": times})

    async def _on_run(self, event: kopf.RawEvent, **_: Any) -> None:
        self._handle(event, self._store.drop_run if event["type"] == "DELETED" else self._store.put_run)

    async def _on_pod(self, event: kopf.RawEvent, **_: Any) -> None:
        self._handle(event, self._store.drop_pod if event["type"] == "DELETED" else self._store.put_pod)

    def _handle(self, event: kopf.RawEvent, take: Callable[[Body], RunKey | None]) -> None:
        if event["type"] is None:
            self._on_listed()
        key = take(event["object"])
        if key is not None:
            self._on_change(key)


class _Backoffs:
    """Endless delays between the tries of a request: a watch that gave up would end the operator."""

    def __iter__(self) -> Iterator[float]:
        for delay in itertools.chain((0.2, 0.5, 1.0, 2.0), itertools.repeat(3.0)):
            yield delay * random.uniform(0.75, 1.25)


class _NothingToCompare(kopf.DiffBaseStorage):
    """Stores nothing. kopf would copy every object to compare it with its last state, which is half of its work."""

    def build(self, *, body: kopf.Body, extra_fields: object = None) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        pass


class _NoProgress(kopf.ProgressStorage):
    """Stores nothing: the progress of event handlers is not tracked."""

    def fetch(self, *, key: object, body: kopf.Body) -> None:
        return None

    def store(self, *, key: object, record: object, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def purge(self, *, key: object, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        pass

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence


def watch_settings() -> kopf.OperatorSettings:
    """kopf's settings: it writes nothing, and no watch freezes unnoticed."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.persistence.diffbase_storage = _NothingToCompare()
    settings.persistence.progress_storage = _NoProgress()
    # Load balancers drop connections silently. However a watch ends (by the server, by us, by silence), it is restarted.
    settings.watching.server_timeout = 120
    settings.watching.client_timeout = 150
    settings.watching.connect_timeout = 5
    settings.watching.inactivity_timeout = 70
    settings.watching.chunk_size = 250
    settings.watching.label_selectors["v1", "pods"] = names.RUN_LABEL
    settings.networking.request_timeout = 60
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Backoffs()
    # kopf's task for each recent object keeps that object in memory: end it soon.
    settings.queueing.idle_timeout = 0.1
    settings.queueing.exit_timeout = 0.5
    settings.process.ultimate_exiting_timeout = None
    return settings
