"""What a metric is: its exported name, type, unit and meaning, and how its values are read from a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from seele_trainer.records import StepRecord

Values = Mapping[str, float | None]
"""Value by label value; the key is "" for a metric without a label, the value None for what was not measured."""

Source = TypeVar("Source", contravariant=True)

SHARE = "0 to 1"
"""The unit of accuracies, rates and ratios."""


@dataclass(frozen=True)
class Metric(Generic[Source]):
    """A gauge or counter: its exported name, its label if any, and how its values are read from a record."""

    name: str
    kind: Literal["gauge", "counter"]
    unit: str
    help: str
    read: Callable[[Source], Values]
    label: str | None = None


@dataclass(frozen=True)
class Observations:
    """One step's observations of a histogram: how many fell into each bucket, and their sum.

    `counts` is one longer than the buckets: its last entry lies above every bound.
    """

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class HistogramMetric:
    """A histogram over the whole run, fed one step at a time; `buckets` are inclusive upper bounds, ascending."""

    name: str
    unit: str
    help: str
    buckets: tuple[float, ...]
    read: Callable[[StepRecord, tuple[float, ...]], Observations | None]
    kind: Literal["histogram"] = "histogram"
    label: str | None = None


def one(value: float | None) -> Values:
    """The values of a metric without a label."""
    return {"": value}


def scalars(metrics: Sequence[Metric[Source]], record: Source) -> dict[str, float]:
    """What a tracker logs of a record: `reward_mean`, `rollout_accuracy/round_1`, …; what was not measured is left out.

    Counters are given as the step's own amount: a tracker that sums them needs no memory of earlier steps.
    """
    named: dict[str, float] = {}
    for metric in metrics:
        short = metric.name.removeprefix("seele_").removesuffix("_total")
        for label, value in metric.read(record).items():
            if value is not None:
                named[f"{short}/{metric.label}_{label}" if metric.label else short] = float(value)
    return named
