"""The runs that need a pass, and when: each key is queued once, and handled by one worker at a time."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

FIRST_RETRY_SECONDS = 0.5
"""Delay after the first failure of a key, doubled for each further one."""
MAX_RETRY_SECONDS = 60.0


class WorkQueue(Generic[Key]):
    """Keys waiting to be handled.

    A key added while it waits is not queued twice; one added while it is being handled is handled again afterwards.
    Delays and retries are timers of the running event loop.
    """

    def __init__(self, jitter: Callable[[], float] = random.random) -> None:
        self._jitter = jitter
        self._waiting: dict[Key, float] = {}
        self._delayed: dict[Key, asyncio.TimerHandle] = {}
        self._working: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._queue: asyncio.Queue[Key | None] = asyncio.Queue()
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Key) -> None:
        """Queue `key` for the next free worker."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = self._now()
            self._queue.put_nowait(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Queue `key` in `seconds`; of several delays the earliest counts."""
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
        """Queue `key` after a delay that grows with its failures; returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay: float = min(FIRST_RETRY_SECONDS * 2 ** min(failures, 16), MAX_RETRY_SECONDS)
        # Spread out the retries of runs that failed together.
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
        """Forget the failures and delays of `key`, which is gone."""
        self._failures.pop(key, None)
        delayed = self._delayed.pop(key, None)
        if delayed is not None:
            delayed.cancel()

    async def get(self) -> Key | None:
        """Wait for the next key; call `done` with it afterwards. None once the queue is closed."""
        key = await self._queue.get()
        if key is None or self._closed:
            self._queue.put_nowait(None)
            return None
        del self._waiting[key]
        self._working[key] = self._now()
        return key

    def close(self) -> None:
        """Return no more keys from `get`."""
        self._closed = True
        self._queue.put_nowait(None)
        for timer in self._delayed.values():
            timer.cancel()

    def done(self, key: Key) -> None:
        """Mark a key from `get` as handled."""
        del self._working[key]
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def longest_wait(self) -> float:
        """Seconds that the first key in the queue has waited; 0 if the queue is empty."""
        return self._age(self._waiting)

    def longest_work(self) -> float:
        """Seconds that the slowest worker has spent on its key; 0 if none is at work."""
        return self._age(self._working)

    def _age(self, since: dict[Key, float]) -> float:
        # Dicts keep insertion order, so the first entry is the oldest.
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
    """Handle one key after another until the queue is closed; await `ready` before each.

    An exception from `handle` ends the worker.
    """
    while (key := await queue.get()) is not None:
        try:
            await ready()
            await handle(key)
        finally:
            queue.done(key)
