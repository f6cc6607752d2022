"""A run's metrics as Prometheus scrapes them: one collector that is updated with whole records."""

import math
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from seele_trainer.config import TrainerConfig
from seele_trainer.run_folder.records import EvaluationRecord, StepRecord
from seele_trainer.telemetry.definitions import (
    EVALUATION_METRICS,
    MOMENT_METRICS,
    RUN_METRICS,
    STEP_METRICS,
    TIME_METRICS,
    Moment,
)
from seele_trainer.telemetry.metric import HISTOGRAM_METRICS, PROBLEM_METRICS, HistogramMetric, Metric, Source

Family = GaugeMetricFamily | CounterMetricFamily | HistogramMetricFamily


class RunCollector(Collector):
    """Gauges, counters and histograms of one run. Thread-safe: a scrape never sees half a step.

    `now` returns the state of the run between two steps and is called in every scrape.

    The client library's metric classes observe one value at a time and stamp counters with their creation time. Here a
    step brings thousands of values at once, and counters continue from the values of an earlier process.
    """

    def __init__(self, config: TrainerConfig, now: Callable[[], Moment]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._values: dict[str, dict[str, float]] = {}
        histograms: tuple[HistogramMetric[Any], ...] = (*HISTOGRAM_METRICS, *PROBLEM_METRICS)
        self._buckets = {metric.name: [0] * (len(metric.buckets) + 1) for metric in histograms}
        self._sums = {metric.name: 0.0 for metric in histograms}
        self._set(RUN_METRICS, config)

    def register(self) -> CollectorRegistry:
        """A registry with only this collector."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        return registry

    def record(self, record: StepRecord, *, count: bool = True, show: bool = True) -> None:
        """Add a finished step to counters and histograms (`count`), and set the gauges to its values (`show`)."""
        with self._lock:
            if count:
                self._add([metric for metric in (*STEP_METRICS, *TIME_METRICS) if metric.kind == "counter"], record)
                for histogram in HISTOGRAM_METRICS:
                    self._observe(histogram, record)
            if show:
                self._set([metric for metric in STEP_METRICS if metric.kind == "gauge"], record)

    def count_problems(self, revealable: Sequence[float]) -> None:
        """Add the training problems to the histogram of the shares of their solutions that hints may show."""
        with self._lock:
            for histogram in PROBLEM_METRICS:
                self._observe(histogram, revealable)

    def show_evaluation(self, record: EvaluationRecord) -> None:
        """Set the gauges of an evaluation."""
        with self._lock:
            self._set(EVALUATION_METRICS, record)

    def collect(self) -> Iterable[Family]:
        """Every metric of the tables; those without a value yet by name and type only."""
        with self._lock:
            self._set(MOMENT_METRICS, self._now())
            tables = (RUN_METRICS, MOMENT_METRICS, STEP_METRICS, TIME_METRICS, EVALUATION_METRICS)
            return [
                *(self._family(metric) for table in tables for metric in table),
                *(self._histogram(metric) for metric in HISTOGRAM_METRICS),
                *(self._histogram(metric) for metric in PROBLEM_METRICS),
            ]

    def _set(self, metrics: Sequence[Metric[Source]], record: Source) -> None:
        for metric in metrics:
            # Values that were not measured become NaN; an old value would be taken for this step's.
            values = metric.read(record).items()
            self._values[metric.name] = {label: math.nan if value is None else float(value) for label, value in values}

    def _add(self, metrics: Sequence[Metric[Source]], record: Source) -> None:
        for metric in metrics:
            totals = self._values.setdefault(metric.name, {})
            for label, value in metric.read(record).items():
                totals[label] = totals.get(label, 0.0) + (value or 0.0)

    def _observe(self, metric: HistogramMetric[Source], record: Source) -> None:
        observed = metric.read(record, metric.buckets)
        if observed is not None:
            self._buckets[metric.name] = [
                a + b for a, b in zip(self._buckets[metric.name], observed.counts, strict=True)
            ]
            self._sums[metric.name] += observed.total

    def _family(self, metric: Metric[Any]) -> Family:
        family_type = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
        family = family_type(metric.name, metric.help, labels=[metric.label] if metric.label else [])
        for label, value in self._values.get(metric.name, {}).items():
            family.add_metric([label] if metric.label else [], value)
        return family

    def _histogram(self, metric: HistogramMetric[Any]) -> HistogramMetricFamily:
        family = HistogramMetricFamily(metric.name, metric.help)
        bounds = [*(str(bound) for bound in metric.buckets), "+Inf"]
        running = 0
        cumulative = []
        for bound, count in zip(bounds, self._buckets[metric.name], strict=True):
            running += count
            cumulative.append((bound, running))
        family.add_metric([], cumulative, self._sums[metric.name])
        return family
