"""What the operator counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from seele_operator.metrics import OperatorMetrics
from seele_operator.status import LastFailure, RunStatus

pytestmark = pytest.mark.unit

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def value(metrics: OperatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_restart_is_counted_under_its_class_and_only_once() -> None:
    metrics = OperatorMetrics()
    failure = LastFailure(failure_class="application", reason="Error", time=NOON)
    before, after = RunStatus(restarts=1), RunStatus(restarts=2, last_failure=failure)
    metrics.status_written(before, after)
    metrics.status_written(after, after)
    assert value(metrics, "seele_operator_restarts_total", **{"class": "application"}) == 1.0
    assert value(metrics, "seele_operator_restarts_total", **{"class": "disruption"}) == 0.0


def test_the_time_to_running_is_that_of_the_first_time() -> None:
    metrics = OperatorMetrics()
    before = RunStatus(start_time=NOON)
    after = RunStatus(start_time=NOON, running_time=NOON + timedelta(seconds=40))
    metrics.status_written(before, after)
    metrics.status_written(after, after)
    assert value(metrics, "seele_operator_time_to_running_seconds_sum") == 40.0
    assert value(metrics, "seele_operator_time_to_running_seconds_count") == 1.0


def test_requests_are_timed_by_verb() -> None:
    metrics = OperatorMetrics()
    metrics.request_seen("PATCH", 200, 0.25)
    assert value(metrics, "seele_operator_api_request_seconds_sum", verb="PATCH") == 0.25


def test_no_metric_has_a_label_for_single_runs() -> None:
    metrics = OperatorMetrics()
    metrics.watch_runs(lambda: [{"metadata": {"name": "first"}, "status": {}}], lambda: 0)
    labels = {
        label
        for family in metrics.registry.collect()
        if family.name.startswith("seele_")
        for sample in family.samples
        for label in sample.labels
    }
    assert labels <= {"phase", "reason", "class", "verb", "le"}
