"""Asking the trainers how far they are: /progress of trainer 0 of every run, without holding anything else up."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import aiohttp

from seele_operator.api.status import TERMINAL
from seele_operator.controller.store import RunKey, Store, uid_of
from seele_operator.observe.pods import ObservedPod
from seele_operator.observe.trainer import ProgressSeen, parse_progress
from seele_operator.plan import names

SHORTEST_ROUND_SECONDS = 2.0
"""Time between two questions to the same trainer, while there are few."""
POLLS_PER_SECOND = 10.0
"""Questions a second to all trainers together: with many of them, each is asked less often."""
ANSWER_SECONDS = 3.0
"""Time limit of one question."""
IN_FLIGHT = 50
LONGEST_ANSWER = 64 * 1024
"""Bytes read of an answer; a trainer's has less than one thousand."""
WORTH_SECONDS = 10.0
"""Numbers that waver within one step, such as the time left, are news only this often."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trainer:
    """A trainer to ask."""

    key: RunKey
    uid: str
    """Of its run."""
    attempt: int
    ip: str

    @property
    def url(self) -> str:
        """Where it answers."""
        host = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"http://{host}:{names.METRICS_PORT}/progress"


@dataclass(frozen=True)
class _Told:
    progress: ProgressSeen
    moment: float


class ProgressBoard:
    """The last answers that were worth a new status, by the uid of the run."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, _Told] = {}

    def last(self, uid: str) -> ProgressSeen | None:
        """The last answer; None where the trainer never answered."""
        told = self._told.get(uid)
        return told.progress if told is not None else None

    def put(self, uid: str, progress: ProgressSeen) -> bool:
        """Take in an answer; whether it is worth a look at the run."""
        told = self._told.get(uid)
        if told is not None:
            if progress == told.progress:
                return False
            if _steady(progress) == _steady(told.progress) and self._clock() - told.moment < WORTH_SECONDS:
                return False
        self._told[uid] = _Told(progress, self._clock())
        return True

    def keep_only(self, uids: set[str]) -> None:
        """Forget all other runs."""
        self._told = {uid: told for uid, told in self._told.items() if uid in uids}


class Poller:
    """Asks all trainers in turn, again and again."""

    def __init__(self, store: Store, board: ProgressBoard, news: Callable[[RunKey], None]) -> None:
        """`news` is called with each run whose trainer has something new to say."""
        self._store = store
        self._board = board
        self._news = news
        self._slots = asyncio.Semaphore(IN_FLIGHT)

    async def run(self) -> None:
        """Ask until cancelled."""
        # A connection of its own for each question: between two, the trainer would have closed it.
        connector = aiohttp.TCPConnector(limit=IN_FLIGHT, force_close=True)
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            asyncio.TaskGroup() as questions,
        ):
            while True:
                self._board.keep_only({uid_of(run) for _, run in self._store.runs()})
                trainers = list(trainers_to_ask(self._store))
                pause = max(SHORTEST_ROUND_SECONDS / max(1, len(trainers)), 1 / POLLS_PER_SECOND)
                for trainer in trainers:
                    await self._slots.acquire()
                    questions.create_task(self._ask(session, trainer))
                    await asyncio.sleep(pause)
                if not trainers:
                    await asyncio.sleep(SHORTEST_ROUND_SECONDS)

    async def _ask(self, session: aiohttp.ClientSession, trainer: Trainer) -> None:
        try:
            # An answer that leads elsewhere is none: pods must not steer the operator's requests.
            async with session.get(trainer.url, allow_redirects=False) as response:
                answer = await response.content.read(LONGEST_ANSWER)
                progress = parse_progress(answer, trainer.attempt, trainer.key.name) if response.status == 200 else None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Usual while a trainer starts, and when it ends. Whether a run is well does not depend on it.
            _log.debug("%s: %s does not answer: %s", trainer.key, trainer.url, error or type(error).__name__)
            return
        finally:
            self._slots.release()
        if progress is not None and self._board.put(trainer.uid, progress):
            self._news(trainer.key)


def trainers_to_ask(store: Store) -> Iterator[Trainer]:
    """Trainer 0 of every run that is at work, in its present attempt."""
    for key, run in store.runs():
        status = run.get("status") or {}
        if status.get("phase") in TERMINAL or "attempt" not in status:
            continue
        attempt = status["attempt"]
        for pod in store.pods(key):
            if _drives(pod, attempt) and pod.ip is not None:
                yield Trainer(key, uid_of(run), pod.attempt, pod.ip)


def _drives(pod: ObservedPod, attempt: object) -> bool:
    return (
        pod.role == "trainer"
        and pod.index == 0
        and pod.attempt == attempt
        and pod.owner == "run"
        and pod.phase == "Running"
    )


def _steady(progress: ProgressSeen) -> ProgressSeen:
    """The part of an answer that does not waver from one question to the next."""
    return replace(progress, reward=None, accuracy=None, hint_rate=None, eta_seconds=None)
