"""Signs of life while a run prepares its data, which may take many minutes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from seele_trainer.formatting import amount, duration
from seele_trainer.telemetry.recorder import Recorder

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0


class Preparation:
    """Each call is a heartbeat; every few seconds a line in the log and in /progress says how far the data are."""

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorder = recorder
        self._clock = clock
        self._shown = clock()

    def reading(self, rows: int) -> None:
        """So many rows of the data set have been read."""
        self._show(f"reading the data set: {amount(rows)} rows")

    def tokenizing(self, total: int) -> Callable[[int], None]:
        """What to call with the number of tokenised problems, out of `total`."""
        started = self._clock()

        def done(count: int) -> None:
            left = (self._clock() - started) * (total - count) / max(1, count)
            self._show(f"tokenising: {amount(count)} of {amount(total)} problems, about {duration(left)} left")

        return done

    def _show(self, line: str) -> None:
        self._recorder.heartbeat()
        if self._clock() - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = self._clock()
            self._recorder.set_phase("starting", line)
            logger.info("%s", line)
