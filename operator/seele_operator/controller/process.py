"""The process of `seele operator`: serve health, become the leader, list all runs, then work until stopped."""

import asyncio
import contextlib
import gc
import json
import logging
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

import kopf

from seele_operator.controller.gate import Gate
from seele_operator.controller.handlers import Watch
from seele_operator.controller.health import Health, serving
from seele_operator.controller.metrics import OperatorMetrics
from seele_operator.controller.progress import Poller, ProgressBoard
from seele_operator.controller.reconcile import Reconciler
from seele_operator.controller.resync import Resync
from seele_operator.controller.store import RunKey, Store
from seele_operator.controller.workqueue import WorkQueue, work
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.errors import ClusterUnavailable, NoCluster, NotLeading, Refused
from seele_operator.kube.kubeconfig import find_cluster
from seele_operator.kube.lease import Leadership
from seele_trainer.termination import ExitCode

FINISH_SECONDS = 10.0
"""Time for unfinished passes when the operator is stopped."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 0.5, 5.0
CRD_SECONDS = 3.0
"""How often to check whether the CustomResourceDefinition exists."""

NEW_OBJECTS = 20_000
"""New objects between two searches for reference cycles: a pod's body has thousands of objects and no cycles."""

NESTING = 20_000
"""Recursion limit: the API server accepts objects of 10,000 levels, and one unreadable object would hide all others."""

LogFormat = Literal["text", "json"]
_QUIET = {
    "kopf": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    # Its warnings repeat errors that we report.
    "kubernetes": logging.ERROR,
}

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class OperatorOptions:
    """How the operator was started."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; all if empty."""
    http_port: int = 9401
    lease_namespace: str | None = None
    """Namespace of the lease; if unset, that of the operator's pod, else `default`."""
    lease_name: str = "seele-operator"
    lease_duration: float = 15.0
    """Seconds without a renewal after which another operator may take over."""
    leader_election: bool = True
    workers: int = 8
    """Runs that are handled at the same time."""
    kubeconfig: str | None = None
    context: str | None = None
    log_format: LogFormat = "text"


class FatalError(Exception):
    """The operator cannot continue; the message says why, and how to fix it."""


def operator_command(options: OperatorOptions) -> int:
    """Run the operator until it is stopped; returns the exit code."""
    _set_up_logging(options.log_format)
    sys.setrecursionlimit(NESTING)
    try:
        asyncio.run(_Operator(options).run())
    except FatalError as error:
        _log.error("%s", error)
        return ExitCode.FAILED
    return ExitCode.DONE


class _Operator:
    """One operator process."""

    def __init__(self, options: OperatorOptions) -> None:
        self._options = options
        self._metrics = OperatorMetrics()
        self._health = Health()
        self._stop = asyncio.Event()
        self._leadership: Leadership | None = None
        self._working = False

    async def run(self) -> None:
        """Work until stopped. Raises FatalError."""
        self._listen_to_signals()
        port = self._options.http_port
        async with contextlib.AsyncExitStack() as closing:
            try:
                await closing.enter_async_context(serving(self._health, self._metrics, port))
            except OSError as error:
                raise FatalError(f"--http-port {port}: {error.strerror}; choose a free port") from error
            await self._until_stopped(self._lead())
        _log.info("stopped")

    def _listen_to_signals(self) -> None:
        loop = asyncio.get_running_loop()
        # Called again when kopf has installed its own handlers.
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.set_exception_handler(_log_stray_error)

    async def _lead(self) -> None:
        """Wait for the lease, and work while it is held."""
        async with await self._connect() as cluster:
            if not self._options.leader_election:
                await self._work(cluster, lost=None)
                return
            options = self._options
            self._leadership = leadership = await Leadership.connect(
                options.kubeconfig,
                options.context,
                namespace=options.lease_namespace,
                name=options.lease_name,
                duration=options.lease_duration,
                on_request=self._metrics.request_seen,
            )
            self._health.standby()
            try:
                await leadership.acquire()
                await self._work(cluster, leadership.lost)
            finally:
                self._metrics.leader.set(0)
                await leadership.release()

    async def _work(self, cluster: Cluster, lost: asyncio.Event | None) -> None:
        """Handle all runs until stopped, or until the lease is `lost`."""
        self._metrics.leader.set(1)
        self._health.not_ready("is listing the runs")
        store, queue, board = Store(), WorkQueue[RunKey](), ProgressBoard()
        resync = Resync(cluster, store, self._options.namespaces, queue.add)
        await self._first_list(resync)
        # Modules and runs live long: searching them repeatedly for reference cycles would take a sixth of the time.
        gc.collect()
        gc.freeze()
        gc.set_threshold(NEW_OBJECTS, 20, 20)

        gate = Gate(lambda: self._probe(cluster), on_return=resync.soon)
        reconciler = Reconciler(cluster, store, queue, gate, self._metrics, board.last)
        watch = Watch(store, queue.add, resync.soon, self._login, self._options.namespaces)
        poller = Poller(store, board, queue.add)
        self._metrics.watch_runs(lambda: (run for _, run in store.runs()), lambda: len(queue))
        self._health.working(queue, gate)
        self._working = True
        namespaces = ", ".join(self._options.namespaces)
        _log.info(
            "at work: %d runs in %s", store.run_count(), f"namespaces {namespaces}" if namespaces else "all namespaces"
        )
        workers = [
            asyncio.create_task(work(queue, reconciler.handle, gate.passable), name=f"worker {number}")
            for number in range(self._options.workers)
        ]
        helpers = [
            asyncio.create_task(watch.run(self._listen_to_signals), name="watch"),
            asyncio.create_task(poller.run(), name="poller"),
            asyncio.create_task(resync.run(), name="resync"),
        ]
        ends = [asyncio.create_task(event.wait()) for event in (self._stop, lost) if event is not None]
        try:
            done, _ = await asyncio.wait([*workers, *helpers, *ends], return_when=asyncio.FIRST_COMPLETED)
        finally:
            queue.close()
            await gate.leave_open()
            await _end([*helpers[1:], *ends])
            _, unfinished = await asyncio.wait(workers, timeout=FINISH_SECONDS)
            await _end(unfinished)
            # Last: when kopf ends, it ends all tasks that were started after it.
            await _end(helpers[:1])
        if lost is not None and lost.is_set():
            raise FatalError(
                f"lease {self._options.lease_name} lost to another operator; exiting, to restart as a standby"
            )
        for task in done:
            if task not in ends:
                raise FatalError(f"{task.get_name()} ended: {task.exception() or 'for no reason'}")

    async def _login(self) -> kopf.ConnectionInfo:
        """The operator's own credentials, for kopf's watches."""
        access = await asyncio.to_thread(find_cluster, self._options.kubeconfig, self._options.context)
        found = access.configuration
        token = await found.get_api_key_with_prefix("BearerToken")
        scheme, _, secret = (token or "").strip().rpartition(" ")
        return kopf.ConnectionInfo(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            insecure=not found.verify_ssl,
            username=found.username or None,
            password=found.password or None,
            scheme=scheme or None,
            token=secret or None,
            certificate_path=found.cert_file,
            private_key_path=found.key_file,
        )

    async def _connect(self) -> Cluster:
        """Find the API server, and wait until it answers."""

        async def connect() -> Cluster:
            return await Cluster.connect(
                self._options.kubeconfig,
                self._options.context,
                allowed=lambda: self._leadership is None or self._leadership.valid(),
                on_request=self._metrics.request_seen,
            )

        self._health.not_ready("is waiting for the API server")
        try:
            return await _retry(connect)
        except NoCluster as error:
            raise FatalError(str(error)) from error

    async def _first_list(self, resync: Resync) -> None:
        """List all objects: no run may be handled before its pods are known, or they would seem to be lost."""
        logged = False
        while True:
            try:
                await _retry(resync.everything)
                return
            except Refused as error:
                if error.refusal.reason == "Forbidden":
                    raise FatalError(f"{error}; grant it as manifests/rbac.yaml does") from error
                if not logged:
                    remedy = "`seele crd | kubectl apply -f -`, before Kubernetes 1.23 with `seele crd --no-cel`"
                    _log.warning("%s; apply it with %s; waiting for it", error, remedy)
                    logged = True
                await asyncio.sleep(CRD_SECONDS)

    async def _probe(self, cluster: Cluster) -> None:
        """Raise ClusterUnavailable or NotLeading if nothing can be written now."""
        if self._leadership is not None and not self._leadership.valid():
            raise NotLeading("the lease could not be renewed in time")
        with contextlib.suppress(Refused):
            # Any answer will do, whether or not a run of this name exists.
            await cluster.read_run(next(iter(self._options.namespaces), "default"), "any")

    async def _until_stopped(self, working: Coroutine[Any, Any, None]) -> None:
        """Await `working` until it fails or a signal arrives."""
        task = asyncio.create_task(working, name="operator")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self._working:
                # Still waiting for the lease or the API server: there is nothing to finish.
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        finally:
            stop.cancel()


async def _retry(request: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeat the request until the API server answers; logs one line when it does not, and one when it does again."""
    delay, logged = FIRST_RETRY_SECONDS, False
    while True:
        try:
            answer = await request()
        except ClusterUnavailable as error:
            if not logged:
                _log.warning("the API server does not answer: %s; trying again", error)
                logged = True
            await asyncio.sleep(max(error.retry_after or 0.0, delay * random.uniform(0.75, 1.25)))
            delay = min(2 * delay, MAX_RETRY_SECONDS)
        else:
            if logged:
                _log.info("the API server answers")
            return answer


async def _end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel the tasks, and wait until they have ended."""
    ending = list(tasks)
    for task in ending:
        task.cancel()
    await asyncio.gather(*ending, return_exceptions=True)


def _log_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # kopf's watches end by being cancelled, which they report as an error.
    if "asyncgen" not in context:
        loop.default_exception_handler(context)


def _set_up_logging(form: LogFormat) -> None:
    """Log to standard error, one line per entry."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(_relevant)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def _relevant(record: logging.LogRecord) -> bool:
    # The operator itself logs an outage of the API server once; kopf logs it for each request of each watch.
    return not (record.name.startswith("kopf") and record.getMessage().startswith("Request attempt"))


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _moment(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)
