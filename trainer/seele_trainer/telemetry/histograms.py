"""The histograms that a trainer exports, and the bounds of their buckets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from seele_trainer.records import Histogram, IrtParameters, StepRecord
from seele_trainer.telemetry.metric import SHARE, HistogramMetric, Observations

HINT_RATE_EDGES = tuple(index / 20 for index in range(21))
"""Bins of the hint-rate histogram: 5 % of the solution each."""

DISCRIMINATION_BUCKETS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 50.0, 100.0)
# At an ability of -1 half of the rollouts succeed only with the whole solution shown, at 0 without any hint.
ABILITY_BUCKETS = (
    *(-2.0, -1.5, -1.25, -1.0, -0.9, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1),
    *(0.0, 0.25, 0.5, 1.0, 2.0),
)
GUESSING_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


def hint_rate_histogram(rates: ArrayLike) -> Histogram:
    """Count the hinting rates of a step's rollouts, each in [0, 1], in bins of 5 %."""
    counts, _ = np.histogram(np.asarray(rates, dtype=np.float64), bins=np.asarray(HINT_RATE_EDGES))
    return Histogram(edges=HINT_RATE_EDGES, counts=tuple(int(count) for count in counts))


def _hint_rates(record: StepRecord, buckets: tuple[float, ...]) -> Observations:
    histogram = record.hint_rate_histogram
    # A bin of the record counts for the first bucket that holds all of it; with equal bounds that is exact.
    places = np.searchsorted(np.asarray(buckets), np.asarray(histogram.edges[1:]) - 1e-9)
    counts = np.bincount(places, weights=histogram.counts, minlength=len(buckets) + 1)
    return Observations(tuple(int(count) for count in counts), (record.hint_rate or 0.0) * sum(histogram.counts))


def _irt(
    pick: Callable[[IrtParameters], Sequence[float]],
) -> Callable[[StepRecord, tuple[float, ...]], Observations | None]:
    def read(record: StepRecord, buckets: tuple[float, ...]) -> Observations | None:
        if record.irt is None:
            return None
        values = np.asarray(pick(record.irt), dtype=np.float64)
        counts = np.bincount(np.searchsorted(np.asarray(buckets), values), minlength=len(buckets) + 1)
        return Observations(tuple(int(count) for count in counts), float(values.sum()))

    return read


HISTOGRAM_METRICS: tuple[HistogramMetric, ...] = (
    HistogramMetric(
        "seele_hint_rate", SHARE, "Share of the solution shown, by rollout.", HINT_RATE_EDGES[1:], _hint_rates
    ),
    HistogramMetric(
        "seele_irt_discrimination",
        "1 / hint rate",
        "Discrimination k of the fitted curves, by problem and step (Eq. 12).",
        DISCRIMINATION_BUCKETS,
        _irt(lambda irt: irt.discrimination),
    ),
    # Prometheus' libraries leave the sum and count out of a histogram with negative buckets.
    HistogramMetric(
        "seele_irt_ability",
        "hint rate",
        "Shifted ability mu of the fitted curves, by problem and step (Eq. 12).",
        ABILITY_BUCKETS,
        _irt(lambda irt: irt.ability),
    ),
    HistogramMetric(
        "seele_irt_guessing",
        SHARE,
        "Guessing b of the fitted curves, by problem and step (Eq. 12).",
        GUESSING_BUCKETS,
        _irt(lambda irt: irt.guessing),
    ),
)
