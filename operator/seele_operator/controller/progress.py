"""Polling /progress of trainer 0 of every run, without holding up anything else."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import aiohttp

from seele_operator.api.status import TERMINAL
from seele_operator.controller.store import RunKey, Store, uid_of
from seele_operator.observe.trainer import ProgressSeen, parse_progress
from seele_operator.plan import names

MIN_ROUND_SECONDS = 2.0
"""Time between two requests to the same trainer, if there are few trainers."""
POLLS_PER_SECOND = 10.0
"""Requests per second to all trainers together: with many trainers, each is polled less often."""
ANSWER_SECONDS = 3.0
"""Time limit of a request."""
IN_FLIGHT = 50
MAX_ANSWER_BYTES = 64 * 1024
"""Bytes read of an answer; a trainer's is shorter than 1 kB."""
WORTH_SECONDS = 10.0
"""How often a change of values that fluctuate within a step, such as the time left, is reported."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainer:
    """A trainer to poll."""

    key: RunKey
    uid: str
    """The run's uid."""
    attempt: int
    ip: str

    @property
    def url(self) -> str:
        """The URL of its progress."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"http://{host}:{names.METRICS_PORT}/progress"


class ProgressBoard:
    """The last answers that were worth a new status, by the uid of the run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[str, tuple[ProgressSeen, float]] = {}

    def last(self, uid: str) -> ProgressSeen | None:
        """The last answer; None if the trainer has never answered."""
        answer = self._answers.get(uid)
        return answer[0] if answer is not None else None

    def put(self, uid: str, progress: ProgressSeen) -> bool:
        """Store an answer, unless it is not worth a pass over the run; returns whether it is."""
        if uid in self._answers:
            last, moment = self._answers[uid]
            if progress == last:
                return False
            if _steady(progress) == _steady(last) and self._clock() - moment < WORTH_SECONDS:
                return False
        self._answers[uid] = (progress, self._clock())
        return True

    def keep_only(self, uids: set[str]) -> None:
        """Forget all other runs."""
        self._answers = {uid: answer for uid, answer in self._answers.items() if uid in uids}


class Poller:
    """Polls all trainers in turn."""

    def __init__(self, store: Store, board: ProgressBoard, on_change: Callable[[RunKey], None]) -> None:
        """`on_change` is called with each run whose trainer reports something new."""
        self._store = store
        self._board = board
        self._on_change = on_change
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def run(self) -> None:
        """Poll until cancelled."""
        # A new connection for each request: the trainer closes idle ones sooner than the next request comes.
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT, force_close=True)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as polls,
        ):
            while True:
                self._board.keep_only({uid_of(run) for _, run in self._store.runs()})
                trainers = list(trainers_to_poll(self._store))
                pause = max(MIN_ROUND_SECONDS / max(1, len(trainers)), 1 / POLLS_PER_SECOND)
                for trainer in trainers:
                    await self._slots.acquire()
                    polls.create_task(self._poll(session, trainer))
                    await asyncio.sleep(pause)
                if not trainers:
                    await asyncio.sleep(MIN_ROUND_SECONDS)

    async def _poll(self, session: aiohttp.ClientSession, trainer: Trainer) -> None:
        try:
            # Without redirects: a pod must not direct the operator's requests elsewhere.
            async with session.get(trainer.url, allow_redirects=False) as response:
                answer = await response.content.read(MAX_ANSWER_BYTES)
                progress = parse_progress(answer, trainer.attempt, trainer.key.name) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Normal while a trainer starts or ends; no decision about the run's health depends on it.
            _log.debug("%s: %s does not answer: %s", trainer.key, trainer.url, error or type(error).__name__)
            return
        finally:
            self._slots.release()
        if progress is not None and self._board.put(trainer.uid, progress):
            self._on_change(trainer.key)


def trainers_to_poll(store: Store) -> Iterator[Trainer]:
    """Trainer 0 of the current attempt of every active run."""
    for key, run in store.runs():
        status = run.get("status") or {}
        if status.get("phase") in TERMINAL or "attempt" not in status:
            continue
        attempt = status["attempt"]
        for pod in store.pods(key):
            driver = pod.role == "trainer" and pod.index == 0 and pod.attempt == attempt and pod.owner == "run"
            if driver and pod.phase == "Running" and pod.ip is not None:
                yield Trainer(key, uid_of(run), pod.attempt, pod.ip)


def _steady(progress: ProgressSeen) -> ProgressSeen:
    """The answer without the values that fluctuate from one request to the next."""
    return replace(progress, reward=None, accuracy=None, hint_rate=None, eta_seconds=None, stop_seconds=None)
