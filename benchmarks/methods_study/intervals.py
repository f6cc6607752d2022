"""Means over seeds, and how far they can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, mean ± half; `half` is None where one value says nothing about the spread."""

    mean: float
    half: float | None

    @property
    def low(self) -> float:
        """Lower end; the mean itself where there is no interval."""
        return self.mean - (self.half or 0.0)

    @property
    def high(self) -> float:
        """Upper end; the mean itself where there is no interval."""
        return self.mean + (self.half or 0.0)

    def above(self, other: Interval) -> bool:
        """Whether this whole interval lies above the other one. Never so where one of them is unknown."""
        return self.half is not None and other.half is not None and self.low > other.high


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what was measured; None where nothing was."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of independent values and Student's t interval. Raises ValueError where there are none."""
    if not values:
        raise ValueError("no values, no mean")
    middle = statistics.fmean(values)
    if len(values) < 2:
        return Interval(middle, None)
    quantile = float(t.ppf(0.5 + level / 2, len(values) - 1))
    return Interval(middle, quantile * statistics.stdev(values) / math.sqrt(len(values)))
