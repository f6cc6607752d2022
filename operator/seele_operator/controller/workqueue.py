"""Which runs are to be looked at, and when: each key once, by one worker at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS = 0.5
"""Delay after the first failure of a key; it doubles with each further one."""
LONGEST_RETRY_SECONDS = 60.0


class WorkQueue(Generic[Key]):
    """Keys that wait to be worked on.

    A key that is added while it waits is kept once; one that is added while it is worked on is worked on again
    afterwards. Delays and retries are timers of the running event loop.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._waiting: dict[Key, float] = {}
        self._delayed: dict[Key, asyncio.TimerHandle] = {}
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._line: asyncio.Queue[Key | None] = asyncio.Queue()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Have `key` worked on as soon as a worker is free."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._now()
            self._line.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Have `key` worked on in `seconds`; of several such wishes the earliest counts."""
        if seconds <= 0:
            self.add(key)
            return
        known = self._delayed.get(key)
        when = self._now() + seconds
        if known is not None:
            if known.when() <= when:
                return
            known.cancel()
        self._delayed[key] = asyncio.get_running_loop().call_at(when, self._time_has_come, key)

    def retry(self, key: Key, at_least: float = 0.0) -> float:
        """Have `key` worked on after a delay that grows with its failures; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(FIRST_RETRY_SECONDS * 2 ** min(failures, 16), LONGEST_RETRY_SECONDS)
        # Runs that failed together should not come back together.
        delay = max(delay * (0.5 + self._jitter() / 2), at_least)
        self.add_after(key, delay)
        return delay

    def failures(self, key: Key) -> int:
        """How often `key` has failed in a row."""
        return self._failures.get(key, 0)

    def succeeded(self, key: Key) -> None:
        """Forget the failures of `key`."""
        self._failures.pop(key, None)

    def forget(self, key: Key) -> None:
        """Forget failures and delays of `key`, which is gone."""
        self._failures.pop(key, None)
        delayed = self._delayed.pop(key, None)
        if delayed is not None:
            delayed.cancel()

    async def get(self) -> Key | None:
        """The next key, as soon as there is one, to be handed back with `done`; None once the queue is closed."""
        key = await self._line.get()
        if key is None or self._closed:
            self._line.put_nowait(None)
            return None
        del self._waiting[key]
        self._working[key] = self._now()
        return key

    def close(self) -> None:
        """Hand out no more keys."""
        self._closed = True
        self._line.put_nowait(None)
        for timer in self._delayed.values():
            timer.cancel()

    def done(self, key: Key) -> None:
        """Hand back a key from `get`."""
        del self._working[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def longest_wait(self) -> float:
        """Seconds that the first key in line has waited; 0 where none waits."""
        return self._age(self._waiting)

    def longest_work(self) -> float:
        """Seconds that the slowest worker has been at its key; 0 where none works."""
        return self._age(self._working)

    @property
    def working(self) -> int:
        """Keys that are being worked on."""
        return len(self._working)

    def _age(self, since: dict[Key, float]) -> float:
        # Dicts keep the order of insertion, so that the first entry is the oldest.
        return self._now() - next(iter(since.values())) if since else 0.0

    def _time_has_come(self, key: Key) -> None:
        self._delayed.pop(key, None)
        self.add(key)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


async def work(
    queue: WorkQueue[Key], handle: Callable[[Key], Awaitable[None]], ready: Callable[[], Awaitable[None]]
) -> None:
    """Work on one key after another until the queue is closed; `ready` is awaited before each.

    `handle` answers for its own failures: what it raises ends the worker.
    """
    while (key := await queue.get()) is not None:
        try:
            await ready()
            await handle(key)
        finally:
            queue.done(key)
