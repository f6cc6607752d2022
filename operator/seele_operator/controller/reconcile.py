"""One pass over one run: observe, decide, write the status, act."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from seele_operator.api.events import RunEvent
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import RunStatus, patch_between, read_status
from seele_operator.controller.children import Children
from seele_operator.controller.gate import Gate
from seele_operator.controller.metrics import OperatorMetrics
from seele_operator.controller.store import Body, RunKey, Store, uid_of
from seele_operator.controller.workqueue import WorkQueue
from seele_operator.decide.accept import accept
from seele_operator.decide.decide import decide
from seele_operator.decide.decision import Decision, Observed
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.errors import (
    ClusterError,
    ClusterUnavailable,
    Conflict,
    Gone,
    NamespaceTerminating,
    NotLeading,
    Refused,
)
from seele_operator.observe.pods import explained
from seele_operator.observe.trainer import ProgressSeen
from seele_operator.plan import objects as plan

TRIES = 3
"""How often a pass starts over because the run has changed, before the run goes back into the queue."""
TERMINATING_NAMESPACE_SECONDS = 15.0
LOG_SECONDS = 5.0
"""How long a pass waits for the logs of servers that failed."""
MAX_LOGS = 8
"""Logs read in a pass: servers that fail at the same time fail for the same reason."""

_log = logging.getLogger(__name__)


class BadStatusError(Exception):
    """No operator wrote the status of a run. Starting from an empty status instead could create a second gang."""


class _Written(NamedTuple):
    """A decision whose status has been written, and the run with that status."""

    run: Body
    before: RunStatus
    decision: Decision


class Reconciler:
    """Handles runs, one key at a time."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        queue: WorkQueue[RunKey],
        gate: Gate,
        metrics: OperatorMetrics,
        progress: Callable[[str], ProgressSeen | None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`progress` returns the trainer's last answer for the uid of a run."""
        self._cluster = cluster
        self._store = store
        self._queue = queue
        self._gate = gate
        self._metrics = metrics
        self._progress = progress
        self._now = now
        self._children = Children(cluster, store)
        self._known: dict[RunKey, str] = {}
        self._bad: dict[str, str] = {}

    async def handle(self, key: RunKey) -> None:
        """One pass over the run in `key`; after a failure that may pass, the key goes back into the queue."""
        with self._metrics.reconcile_seconds.time():
            try:
                await self.reconcile(key)
            except ClusterUnavailable as error:
                # The gate logs an outage of the API server, once for all runs.
                if self._queue.failures(key):
                    _log.warning("%s: %s; trying again", key, error)
                self._failed(key, "unavailable", error.retry_after or 0.0)
                self._gate.close(error)
            except NotLeading as error:
                self._failed(key, "not_leading")
                self._gate.close(error)
            except (Conflict, Gone):  # Gone: the run or its namespace, as the watch will report
                self._failed(key, "conflict")
            except NamespaceTerminating as error:
                _log.info("%s: %s; nothing more is created in it", key, error)
                self._failed(key, "namespace_terminating", TERMINATING_NAMESPACE_SECONDS)
            except Refused as error:
                _log.error("%s: the API server refuses: %s", key, error)
                self._failed(key, "refused")
            except BadStatusError as error:
                _log.error("%s: %s", key, error)
                self._metrics.reconcile_errors.labels("bad_status").inc()
            except Exception:  # noqa: BLE001 - a run that cannot be handled must not stop the others
                _log.exception("%s: pass failed", key)
                self._failed(key, "internal")
            else:
                self._queue.succeeded(key)

    async def reconcile(self, key: RunKey) -> None:
        """One pass over the run in `key`. Raises ClusterError and BadStatusError."""
        run = self._store.run(key)
        uid = uid_of(run) if run is not None else ""
        if self._known.get(key, uid) != uid or run is None:
            self._forget(key)
        if run is None or _is_terminating(run):
            # The garbage collector deletes the run's objects by their owner references.
            return
        self._known[key] = uid
        written = await self._decide_and_write(key)
        if written is None:
            return
        run, before, decision = written
        self._metrics.status_written(before, decision.status)
        posting = asyncio.create_task(self._post_events(run, decision))
        try:
            await self._act(key, run, decision)
        finally:
            await posting

    async def _decide_and_write(self, key: RunKey) -> _Written | None:
        """Decide and write the decision's status; None if the run no longer exists."""
        for _ in range(TRIES):
            run = self._store.run(key)
            if run is None or _is_terminating(run):
                return None
            decision = await self._decide(run, key, {})
            if decision.needs_fresh_read:
                logs = await self._read_logs(key)
                run = await self._read_afresh(run, key)
                if run is None or _is_terminating(run):
                    return None
                decision = await self._decide(run, key, logs)
            try:
                return await self._write(run, key, decision)
            except Conflict:
                await self._read_run(key, uid_of(run))
            except Gone:
                self._store.lost_run(key, uid_of(run))
                return None
        raise Conflict(f"{key} changed {TRIES} times during a pass")

    async def _decide(self, run: Body, key: RunKey, logs: Mapping[str, str]) -> Decision:
        """Decide with what is known; `logs` are those of failed servers, by the uid of the pod."""
        uid = uid_of(run)
        pods = tuple(explained(pod, logs[pod.uid]) if pod.uid in logs else pod for pod in self._store.pods(key))
        seen = Observed(pods, self._progress(uid), self._children.refusal(uid))
        return decide(run, await self._status(run), seen, self._now())

    async def _status(self, run: Body) -> RunStatus:
        try:
            return read_status(run)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"])
            message = f"status.{field} was not written by Seele ({first['msg']}); the run is not touched: delete it"
            # Once for each version of the run.
            if self._bad.get(uid_of(run)) != run["metadata"].get("resourceVersion"):
                self._bad[uid_of(run)] = run["metadata"].get("resourceVersion")
                await self._cluster.post_event(run, RunEvent("Warning", "BadStatus", message), self._now())
            raise BadStatusError(message) from error

    async def _write(self, run: Body, key: RunKey, decision: Decision) -> _Written:
        before = await self._status(run)
        patch = patch_between(run.get("status") or {}, decision.status.to_api())
        if patch:
            version = run["metadata"]["resourceVersion"]
            run = await self._cluster.patch_status(key.namespace, key.name, version, patch)
            self._store.put_run(run)
        return _Written(run, before, decision)

    async def _act(self, key: RunKey, run: Body, decision: Decision) -> None:
        recheck = [
            decision.recheck_seconds,
            *[await self._children.carry_out(run, action) for action in decision.actions],
        ]
        if decision.status.gang == "created" and not decision.status.terminal:
            recheck.append(await self._upkeep(run, decision.status))
        delays = [seconds for seconds in recheck if seconds is not None]
        if delays:
            self._queue.add_after(key, min(delays))

    async def _upkeep(self, run: Body, status: RunStatus) -> float:
        if not self._children.upkeep_in(uid_of(run)):
            accepted = _accepted_run(run, status)
            if accepted is not None:
                await self._children.upkeep(run, accepted, status.attempt)
        return self._children.upkeep_in(uid_of(run))

    async def _post_events(self, run: Body, decision: Decision) -> None:
        for event in decision.events:
            await self._cluster.post_event(run, event, self._now())

    async def _read_afresh(self, run: Body, key: RunKey) -> Body | None:
        """Read the run and all its pods from the API server: nothing stale may be counted against the run."""
        accepted = _accepted_run(run, await self._status(run))
        known = {pod.name: pod.uid for pod in self._store.pods(key)}
        names = {*known, *(plan.pod_names(accepted) if accepted is not None else ())}
        fresh, *_ = await asyncio.gather(
            self._read_run(key, uid_of(run)), *(self._read_pod(key, name, known.get(name)) for name in names)
        )
        return fresh

    async def _read_logs(self, key: RunKey) -> dict[str, str]:
        """The logs that tell why servers failed, by the uid of the pod, without those that cannot be read soon."""
        wanted = [pod for pod in self._store.pods(key) if pod.failure is not None and pod.failure.needs_log]
        found = await asyncio.gather(*(self._read_log(key, pod.name) for pod in wanted[:MAX_LOGS]))
        return {pod.uid: log for pod, log in zip(wanted, found, strict=False)}

    async def _read_log(self, key: RunKey, pod: str) -> str:
        try:
            async with asyncio.timeout(LOG_SECONDS):
                return await self._cluster.read_log(key.namespace, pod, "rollout")
        except (ClusterError, TimeoutError) as error:
            # The reason is worth a request, but a run must not wait for it: its node may be gone.
            _log.warning("%s: the log of pod %s was not read: %s", key, pod, error or "no answer in time")
            return ""

    async def _read_run(self, key: RunKey, uid: str) -> Body | None:
        body = await self._cluster.read_run(key.namespace, key.name)
        if body is None:
            self._store.lost_run(key, uid)
        else:
            self._store.put_run(body)
        return self._store.run(key)

    async def _read_pod(self, key: RunKey, name: str, uid: str | None) -> None:
        body = await self._cluster.read_pod(key.namespace, name)
        if body is not None:
            self._store.put_pod(body)
        elif uid is not None:
            self._store.lost_pod(key, name, uid)

    def _failed(self, key: RunKey, reason: str, at_least: float = 0.0) -> None:
        self._metrics.reconcile_errors.labels(reason).inc()
        self._queue.retry(key, at_least)

    def _forget(self, key: RunKey) -> None:
        uid = self._known.pop(key, None)
        if uid is not None:
            self._queue.forget(key)
            self._children.forget(uid)
            self._bad.pop(uid, None)


def _is_terminating(run: Body) -> bool:
    return bool(run["metadata"].get("deletionTimestamp"))


def _accepted_run(run: Body, status: RunStatus) -> SeeleRun | None:
    """The run with the spec that its pods follow; None if none has been accepted yet."""
    return accept(run, status.accepted_spec, "live").run if status.accepted_spec is not None else None
