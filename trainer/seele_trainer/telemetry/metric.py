"""A metric: its exported name, type, unit and meaning, and how its values are read from a record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from seele_trainer.run_folder.records import Histogram, IrtParameters, StepRecord

Values = Mapping[str, float | None]
"""Value by label value. The key is "" for a metric without a label; the value is None if it was not measured."""

Source = TypeVar("Source", contravariant=True)

SHARE = "0 to 1"
"""The unit of accuracies, rates and ratios."""


@dataclass(frozen=True)
class Metric(Generic[Source]):
    """A gauge, or a counter if its name ends in `_total`; `read` returns its values in a record."""

    name: str
    unit: str
    help: str
    read: Callable[[Source], Values]
    label: str | None = None

    @property
    def kind(self) -> Literal["gauge", "counter"]:
        """The type that Prometheus knows."""
        return "counter" if self.name.endswith("_total") else "gauge"


@dataclass(frozen=True)
class Observations:
    """New observations of a histogram: the count of each bucket, and the sum.

    `counts` is one longer than the buckets: its last entry counts values above every bound.
    """

    counts: tuple[int, ...]
    total: float

    @classmethod
    def of(cls, values: Sequence[float], buckets: tuple[float, ...]) -> Self:
        """The observations of single values."""
        counts = np.bincount(np.searchsorted(np.asarray(buckets), values), minlength=len(buckets) + 1)
        return cls(tuple(int(count) for count in counts), float(sum(values)))


@dataclass(frozen=True)
class HistogramMetric(Generic[Source]):
    """A histogram over the whole run, updated with whole records; `buckets` are inclusive upper bounds, ascending."""

    name: str
    unit: str
    help: str
    buckets: tuple[float, ...]
    read: Callable[[Source, tuple[float, ...]], Observations | None]
    kind: Literal["histogram"] = "histogram"
    label: str | None = None


def one(value: float | None) -> Values:
    """The values of a metric without a label."""
    return {"": value}


def scalars(metrics: Sequence[Metric[Source]], record: Source) -> dict[str, float]:
    """What a tracker logs of a record: `reward_mean`, `rollout_accuracy/round_1`, …, without values not measured.

    A counter is given as the amount of this step, so that a tracker can sum it without knowing earlier steps.
    """
    named: dict[str, float] = {}
    for metric in metrics:
        short = metric.name.removeprefix("seele_").removesuffix("_total")
        for label, value in metric.read(record).items():
            if value is not None:
                named[f"{short}/{metric.label}_{label}" if metric.label else short] = float(value)
    return named


HINT_RATE_EDGES = tuple(index / 20 for index in range(21))
"""Bins of the hint-rate histogram: 5 % of the solution each."""

DISCRIMINATION_BUCKETS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 50.0, 100.0)

# At an ability of -1, half of the rollouts succeed if the whole solution is shown; at 0, half succeed without a hint.
ABILITY_BUCKETS = (
    *(-2.0, -1.5, -1.25, -1.0, -0.9, -0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, -0.1),
    *(0.0, 0.25, 0.5, 1.0, 2.0),
)

GUESSING_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)


def hint_rate_histogram(rates: ArrayLike) -> Histogram:
    """Count the hint rates of a step's rollouts, each in [0, 1], in bins of 5 %."""
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
        return None if record.irt is None else Observations.of(pick(record.irt), buckets)

    return read


HISTOGRAM_METRICS: tuple[HistogramMetric[StepRecord], ...] = (
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
    # Prometheus' libraries omit the sum and count of a histogram with negative buckets.
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

PROBLEM_METRICS: tuple[HistogramMetric[Sequence[float]], ...] = (
    HistogramMetric(
        "seele_solution_revealable_ratio",
        SHARE,
        "Share of the solution's tokens that hints may show, because they do not reveal the answer, by training problem.",
        HINT_RATE_EDGES,
        Observations.of,
    ),
)
"""Read at the start from the shares of all training problems; empty if the method shows no hints."""
