"""Leader election by a Lease: of several operators for the same runs, one writes and the others wait.

The official client has leader election too, but it uses the wall clock, gives up when the API server cannot be reached,
and neither releases its lease nor says whether it is still valid.
"""

import asyncio
import contextlib
import logging
import math
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from seele_operator.kube.cluster import path_of
from seele_operator.kube.connection import ApiConnection, RequestSeen, default_identity
from seele_operator.kube.errors import AlreadyExists, ClusterError, Conflict, Gone, Target, error_of
from seele_operator.kube.kubeconfig import own_namespace
from seele_operator.plan.names import Manifest

API_VERSION, KIND = "coordination.k8s.io/v1", "Lease"
CHECK_SECONDS = 1.0
"""How often a standby checks the lease: after a leader has released it, the next one starts within this time."""
REQUEST_SECONDS = 5.0
"""Timeout of a request for the lease: a slower answer could come too late to renew it."""
MARGIN = 1 / 3
"""Safety margin: a leader that cannot renew stops writing this fraction of the duration before the lease expires."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Seen:
    """The lease's spec, as last read."""

    record: Mapping[str, Any]
    since: float
    """When this candidate last saw it change, by its own clock: others' clocks may be wrong."""


class Leadership:
    """One candidate for the lease. `await acquire()`, work while `valid()`, stop when `lost` is set, `await release()`.

    While the API server cannot be reached, `valid()` becomes False in time, but `lost` is not set: if no other candidate
    has taken the lease when the server is back, work resumes.
    """

    lost: asyncio.Event
    """Set when another candidate holds the lease after this one did."""

    def __init__(
        self,
        connection: ApiConnection,
        namespace: str,
        name: str = "seele-operator",
        *,
        identity: str | None = None,
        duration: float = 15.0,
        renew_every: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`duration` is in whole seconds; `renew_every`, in seconds, is a fifth of it if unset.

        The connection should serve the lease alone: a renewal must not wait behind other requests.
        """
        self.lost = asyncio.Event()
        self.identity = identity or f"{default_identity()}_{uuid.uuid4()}"
        self._connection = connection
        self._namespace = namespace
        self._name = name
        self._target = Target(API_VERSION, KIND, name)
        self._duration = max(1, math.ceil(duration))
        self._renew_every = renew_every if renew_every is not None else self._duration / 5
        self._clock = clock
        self._now = now
        self._seen: _Seen | None = None
        self._checked = -math.inf
        self._lease: Manifest | None = None
        self._valid_until = -math.inf
        self._renewing: asyncio.Task[None] | None = None
        self._trouble: str | None = None
        self._logged_holder: str | None = None

    @classmethod
    async def connect(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        namespace: str | None = None,
        name: str = "seele-operator",
        duration: float = 15.0,
        on_request: RequestSeen | None = None,
    ) -> Self:
        """A candidate with its own connection, for a lease in `namespace` (default: this pod's namespace, else `default`).

        Raises NoCluster.
        """
        connection = await ApiConnection.open(kubeconfig, context, in_flight=2, on_request=on_request)
        return cls(connection, namespace or own_namespace() or "default", name, duration=duration)

    async def acquire(self) -> None:
        """Wait until this candidate holds the lease, and keep renewing it in a task of its own."""
        self.lost.clear()
        while not await self._attempt():  # noqa: ASYNC110 - the change happens in another process
            await asyncio.sleep(self._wait())
        _log.info("%s is the leader by lease %s/%s", self.identity, self._namespace, self._name)
        self._renewing = asyncio.create_task(self._renew(), name="lease")

    def valid(self) -> bool:
        """Whether no other candidate can hold the lease right now; check it before every write."""
        return self._clock() < self._valid_until

    async def release(self) -> None:
        """Stop renewing, release the lease so that another candidate can take it at once, and close the connection."""
        self._valid_until = -math.inf
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        # A candidate that is stopped during a request for the lease may have acquired it.
        if not self.lost.is_set():
            await self._give_up()
        self._renewing = None
        await self._connection.close()

    async def _renew(self) -> None:
        held = True
        while not self.lost.is_set():
            await asyncio.sleep(self._renew_every if held else min(self._renew_every, CHECK_SECONDS))
            held = await self._attempt()

    async def _attempt(self) -> bool:
        """Take or renew the lease if possible; returns whether this candidate holds it."""
        try:
            held = await self._take_or_renew()
        except (Conflict, AlreadyExists):
            # Another candidate was faster; the next check shows which one.
            self._lease = None
            return False
        except ClusterError as error:
            if self._trouble is None:
                _log.warning("the lease cannot be read or renewed: %s", error)
            self._trouble = str(error)
            return False
        except Exception:  # noqa: BLE001 - if renewing ended here, the operator would stop silently
            _log.exception("lease %s/%s", self._namespace, self._name)
            self._trouble = "unexpected"
            return False
        if self._trouble is not None:
            self._trouble = None
            _log.info("the lease can be read and renewed again")
        return held

    async def _take_or_renew(self) -> bool:
        began = self._clock()
        lease = self._lease or await self._read()
        record = (lease or {}).get("spec") or {}
        checked, self._checked = self._checked, self._clock()
        if self._seen is None or self._seen.record != record:
            self._seen = _Seen(record, self._checked)
        elif self._trouble is not None:
            # The time of an outage does not count: the holder could hardly renew either.
            self._seen = _Seen(record, self._seen.since + self._checked - checked)
        holder = record.get("holderIdentity")
        if holder == self.identity:
            record = {**record, "renewTime": _micro_time(self._now())}
        elif self._renewing is not None and holder:
            _log.error("lease %s/%s was lost to %s", self._namespace, self._name, holder)
            self._valid_until = -math.inf
            self.lost.set()
            return False
        elif holder and self._clock() < self._expiry(self._seen):
            if holder != self._logged_holder:
                _log.info("standing by: lease %s/%s is held by %s", self._namespace, self._name, holder)
                self._logged_holder = holder
            return False
        else:
            moment = _micro_time(self._now())
            transitions = 0 if lease is None else int(record.get("leaseTransitions") or 0) + 1
            record = {
                "holderIdentity": self.identity,
                "acquireTime": moment,
                "renewTime": moment,
                "leaseTransitions": transitions,
            }
        await self._write(lease, {**record, "leaseDurationSeconds": self._duration})
        # Measured from before the request: others measure from when they see the change, which can only be later.
        self._valid_until = began + self._duration * (1 - MARGIN)
        return True

    def _expiry(self, seen: _Seen) -> float:
        return seen.since + float(seen.record.get("leaseDurationSeconds") or self._duration)

    def _wait(self) -> float:
        """Seconds until the next check, which is at the latest when the observed lease expires."""
        if self._seen is None or self._trouble is not None:
            return CHECK_SECONDS
        return min(CHECK_SECONDS, max(0.05, self._expiry(self._seen) - self._clock()))

    async def _give_up(self) -> None:
        """Clear the holder of the lease, if it is still this candidate."""
        with contextlib.suppress(ClusterError):
            for _ in range(3):
                lease = self._lease or await self._read()
                if lease is None or lease["spec"].get("holderIdentity") != self.identity:
                    return
                record = {
                    **lease["spec"],
                    "holderIdentity": "",
                    "leaseDurationSeconds": 1,
                    "renewTime": _micro_time(self._now()),
                }
                try:
                    await self._write(lease, record)
                except Conflict:
                    # A renewal in flight has been written after all.
                    self._lease = None
                else:
                    _log.info("lease %s/%s released", self._namespace, self._name)
                    return
        if self._renewing is not None:
            _log.warning("lease %s/%s could not be released: it will expire", self._namespace, self._name)

    async def _read(self) -> Manifest | None:
        answer = await self._connection.request("GET", self._path(self._name), seconds=REQUEST_SECONDS)
        if answer.code < 300:
            return dict(answer.body)
        error = error_of(self._target, answer)
        if isinstance(error, Gone):
            return None
        raise error

    async def _write(self, lease: Manifest | None, record: Mapping[str, Any]) -> None:
        """Create the lease, or replace it if it is unchanged since it was read."""
        self._lease = None
        if lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": record}
            answer = await self._connection.request("POST", self._path(), body, seconds=REQUEST_SECONDS)
        else:
            path, body = self._path(self._name), {**lease, "spec": record}
            answer = await self._connection.request("PUT", path, body, seconds=REQUEST_SECONDS)
        if answer.code >= 300:
            raise error_of(self._target, answer)
        self._lease = dict(answer.body)

    def _path(self, name: str | None = None) -> str:
        return path_of(Target(API_VERSION, KIND, name), self._namespace)


def _micro_time(now: datetime) -> str:
    return now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
