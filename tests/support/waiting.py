"""Time in tests: waiting for a condition, with a deadline, and a clock."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Clock:
    """A clock that only tests move."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


POLL_SECONDS = 0.1


def wait_for(condition: Callable[[], T], what: str | Callable[[], str], seconds: float = 60.0) -> T:
    """Poll `condition` and return its first truthy value. Raises AssertionError with `what` after the deadline."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_SECONDS)
