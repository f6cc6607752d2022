"""Means over seeds and their confidence intervals."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import t


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval, mean ± half; `half` is None for a single value."""

    mean: float
    half: float | None


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the measured values; None if nothing was measured."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean of independent values and Student's t interval."""
    middle = statistics.fmean(values)
    if len(values) < 2:
        return Interval(middle, None)
    quantile = float(t.ppf(0.5 + level / 2, len(values) - 1))
    return Interval(middle, quantile * statistics.stdev(values) / math.sqrt(len(values)))
