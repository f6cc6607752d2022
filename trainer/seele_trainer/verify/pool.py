"""Check answers in worker processes that can be killed, without blocking the event loop."""

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from seele_trainer import config
from seele_trainer.verify.process import VerifierError, WorkerDied, WorkerProcess, WorkerTimedOut, available_cores

logger = logging.getLogger(__name__)

MAX_BATCH = 64
"""Pairs sent to a worker in one message."""

MAX_CACHED_VERDICTS = 8192
"""Verdicts kept for repeated pairs, which are frequent with small problem sets and identical rollouts."""

MAX_START_FAILURES = 3
"""Consecutive failed starts after which the whole verifier gives up."""

MAX_DEFAULT_WORKERS = 32
"""Each has a computer algebra system in memory."""

Pair = tuple[str, str]


@dataclass(frozen=True, eq=False)
class _Check:
    """A pair that is waiting for its verdict or being checked."""

    pair: Pair
    key: bytes
    verdict: asyncio.Future[bool | None]


class VerifierPool:
    """Checks (completion text, expected answer) pairs in `workers` processes.

    A worker that takes longer than `timeout_seconds` for a pair is killed and replaced, and that pair gets no verdict
    (counted in `timeouts`). The same happens if a worker dies or raises (`crashes`). All methods run on one asyncio loop.
    """

    def __init__(self, verifier: config.Verifier) -> None:
        self.timeouts = 0
        self.crashes = 0
        self._config = verifier
        self._workers = verifier.workers or min(MAX_DEFAULT_WORKERS, available_cores())
        self._waiting: deque[_Check] = deque()
        self._pending: dict[bytes, _Check] = {}
        self._known: OrderedDict[bytes, bool] = OrderedDict()
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._processes: dict[int, WorkerProcess] = {}
        self._failure: VerifierError | None = None

    @property
    def worker_pids(self) -> list[int]:
        """Process ids of the workers that are up."""
        return [process.pid for process in self._processes.values()]

    async def start(self) -> None:
        """Start the workers and wait until they are ready. Raises VerifierError if they cannot start."""
        if self._tasks:
            return
        self._failure = None
        ready: list[asyncio.Future[None]] = []
        for number in range(self._workers):
            ready.append(asyncio.get_running_loop().create_future())
            task = asyncio.create_task(self._serve(number, ready[-1]), name=f"verifier-{number}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)
        try:
            await asyncio.gather(*ready)
        except (VerifierError, asyncio.CancelledError):
            await self.close()
            raise

    async def check(self, items: Sequence[Pair]) -> list[bool | None]:
        """Whether each completion text has the expected final answer, in order; None if the check timed out or crashed.

        A repeated pair is checked and counted once. Raises VerifierError if no worker can run.
        """
        keys = [_key(pair) for pair in items]
        verdicts: dict[bytes, bool | None] = {}
        awaited: dict[bytes, asyncio.Future[bool | None]] = {}
        for key, pair in zip(keys, items, strict=True):
            if key in self._known:
                self._known.move_to_end(key)
                verdicts[key] = self._known[key]
            elif key not in awaited:
                awaited[key] = self._submitted(key, pair)
        if awaited:
            # Not gather(): a cancelled caller must not cancel the verdicts of others that wait for the same pair.
            await asyncio.wait(awaited.values())
        verdicts.update((key, verdict.result()) for key, verdict in awaited.items())
        return [verdicts[key] for key in keys]

    async def close(self) -> None:
        """Kill the workers; pending checks raise VerifierError."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        self._fail(VerifierError("the verifier was closed"))

    def _submitted(self, key: bytes, pair: Pair) -> asyncio.Future[bool | None]:
        if self._failure is not None or not self._tasks:
            raise self._failure or VerifierError("the verifier is not running: await start() first")
        check = self._pending.get(key)
        if check is None:
            check = _Check(pair, key, asyncio.get_running_loop().create_future())
            self._pending[key] = check
            self._waiting.append(check)
            self._work.set()
        return check.verdict

    async def _serve(self, number: int, ready: asyncio.Future[None]) -> None:
        """Keep one worker process running until cancelled."""
        failures = 0
        try:
            while True:
                try:
                    self._processes[number] = await WorkerProcess.start(self._config.method)
                except VerifierError as error:
                    failures += 1
                    if not ready.done():
                        ready.set_exception(error)
                        return
                    if failures == MAX_START_FAILURES:
                        self._fail(error)
                        return
                    continue
                failures = 0
                if not ready.done():
                    ready.set_result(None)
                await self._feed(self._processes[number])
                # It stays listed until it is gone, so that a cancellation here does not leave it running.
                await self._processes[number].kill()
                del self._processes[number]
        finally:
            if number in self._processes:
                await self._processes.pop(number).kill()

    async def _feed(self, process: WorkerProcess) -> None:
        """Send batches to a process until it must be replaced."""
        while True:
            batch = deque(await self._next_batch())
            try:
                await process.send([check.pair for check in batch])
                while batch:
                    verdict = await process.verdict(self._config.timeout_seconds)
                    self.crashes += verdict is None
                    self._resolve(batch.popleft(), verdict)
            except WorkerTimedOut:
                self.timeouts += 1
                logger.warning("an answer took more than %g s to check", self._config.timeout_seconds)
                self._resolve(batch.popleft(), None)
                return
            except WorkerDied:
                self.crashes += 1
                logger.warning("a verifier worker died while it checked an answer")
                self._resolve(batch.popleft(), None)
                return
            finally:
                self._waiting.extendleft(reversed(batch))
                if batch:
                    self._work.set()

    async def _next_batch(self) -> list[_Check]:
        while not self._waiting:
            self._work.clear()
            await self._work.wait()
        # An equal share for each worker, so that none is idle while another has a long batch.
        share = -(-len(self._waiting) // self._workers)
        return [self._waiting.popleft() for _ in range(min(share, MAX_BATCH))]

    def _resolve(self, check: _Check, verdict: bool | None) -> None:
        self._pending.pop(check.key, None)
        if verdict is not None:
            self._known[check.key] = verdict
            if len(self._known) > MAX_CACHED_VERDICTS:
                self._known.popitem(last=False)
        if not check.verdict.done():
            check.verdict.set_result(verdict)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Fail all waiting checks if a task ends with an unexpected error."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("a verifier task failed", exc_info=error)
            self._fail(VerifierError(f"the verifier failed: {error!r}"))

    def _fail(self, error: VerifierError) -> None:
        self._failure = error
        for check in self._pending.values():
            if not check.verdict.done():
                check.verdict.set_exception(error)
        self._pending.clear()
        self._waiting.clear()


def _key(pair: Pair) -> bytes:
    text, expected = pair
    return hashlib.blake2b(f"{len(text)}:{text}{expected}".encode(errors="surrogatepass"), digest_size=16).digest()
