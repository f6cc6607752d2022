"""Lists all runs and pods: when the operator starts, and from time to time to correct what the watches have missed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

from seele_operator.controller.store import RunKey, Store, key_of, place_of
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.errors import ClusterError
from seele_operator.plan.names import Manifest

RESYNC_SECONDS = 300.0
"""How often everything is listed, in case a watch has missed something."""
SETTLE_SECONDS = 3.0
"""Delay between a watch's own list and a full one: the former does not report deleted objects."""
FAILED_SECONDS = 10.0

_log = logging.getLogger(__name__)


class Resync:
    """Brings the store up to date with the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        namespaces: Sequence[str],
        on_change: Callable[[RunKey], None],
    ) -> None:
        """`namespaces`: those to list; empty for all. `on_change` is called with each run that has changed."""
        self._cluster = cluster
        self._store = store
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._on_change = on_change
        self._due = 0.0
        self._sooner = asyncio.Event()

    async def everything(self) -> None:
        """List all runs and pods. Raises ClusterUnavailable and Refused."""
        changed: set[RunKey] = set()
        for namespace in self._namespaces:
            # Pods first: if a run were known before its pods, they would seem to be lost.
            changed |= await self._pods(namespace)
            changed |= await self._runs(namespace)
        for key in changed:
            self._on_change(key)

    async def _pods(self, namespace: str | None) -> set[RunKey]:
        listed: set[tuple[RunKey, str]] = set()
        news: set[RunKey | None] = set()

        def take(pod: Manifest) -> None:
            place = place_of(pod)
            if place is not None:
                listed.add(place)
                news.add(self._store.put_pod(pod))

        began = time.monotonic()
        version = await self._cluster.each_pod(namespace, take)
        return {key for key in news if key is not None} | self._store.keep_pods(listed, version, began, namespace)

    async def _runs(self, namespace: str | None) -> set[RunKey]:
        listed: set[RunKey] = set()
        news: set[RunKey | None] = set()

        def take(run: Manifest) -> None:
            listed.add(key_of(run))
            news.add(self._store.put_run(run))

        began = time.monotonic()
        version = await self._cluster.each_run(namespace, take)
        return {key for key in news if key is not None} | self._store.keep_runs(listed, version, began, namespace)

    def soon(self) -> None:
        """List everything once this has not been called for SETTLE_SECONDS."""
        self._due = time.monotonic() + SETTLE_SECONDS
        self._sooner.set()

    async def run(self) -> None:
        """List everything from time to time, until cancelled."""
        if not self._sooner.is_set():
            self._due = time.monotonic() + RESYNC_SECONDS
        while True:
            await self._until_due()
            self._due = time.monotonic() + RESYNC_SECONDS
            try:
                await self.everything()
            except ClusterError as error:
                _log.debug("resync failed: %s", error)
                self._due = time.monotonic() + FAILED_SECONDS

    async def _until_due(self) -> None:
        while (left := self._due - time.monotonic()) > 0:
            self._sooner.clear()
            # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._sooner.wait()
