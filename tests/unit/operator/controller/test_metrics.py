"""The operator's metrics."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, get_args

import pytest
from prometheus_client.exposition import generate_latest

from seele_operator.api.status import LastFailure, RunPhase, RunStatus
from seele_operator.controller.metrics import OperatorMetrics

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def value(metrics: OperatorMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def test_a_restart_is_counted_once_by_its_class() -> None:
    metrics = OperatorMetrics()
    failure = LastFailure(failure_class="application", reason="Error", time=NOON)
    before, after = RunStatus(restarts=1), RunStatus(restarts=2, last_failure=failure)
    metrics.status_written(before, after)
    metrics.status_written(after, after)
    assert value(metrics, "seele_operator_restarts_total", **{"class": "application"}) == 1.0
    assert value(metrics, "seele_operator_restarts_total", **{"class": "disruption"}) == 0.0


def test_the_time_to_running_is_observed_once() -> None:
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


def body(name: str, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "lab", "name": name}, "spec": spec or {}, "status": status}


def seen(*runs: dict[str, Any]) -> Callable[..., float | None]:
    """Looks up samples in the metrics of an operator with these runs."""
    metrics = OperatorMetrics()
    metrics.watch_runs(lambda: runs, lambda: 0)
    return partial(value, metrics)


FIRST = {"run_namespace": "lab", "run": "first"}


def test_every_run_has_its_own_series() -> None:
    found = seen(
        body(
            "first",
            {"runPolicy": {"backoffLimit": 5}},
            phase="Running",
            attempt=3,
            failures={"application": 2},
            lastCheckpoint={"step": 40, "path": "checkpoints/step-40"},
            step=47,
            steps=100,
            accuracy=0.25,
        ),
        body("second", phase="Failed"),
    )
    assert found("seele_run_phase", **FIRST, phase="Running") == 1
    assert found("seele_run_phase", **FIRST, phase="Failed") is None
    assert found("seele_run_phase", run_namespace="lab", run="second", phase="Failed") == 1
    assert found("seele_run_attempt", **FIRST) == 3
    assert found("seele_run_failures", **FIRST, **{"class": "application"}) == 2
    assert found("seele_run_failures", **FIRST, **{"class": "disruption"}) == 0
    assert found("seele_run_failures_limit", **FIRST, **{"class": "application"}) == 5
    # The default, since the run does not set it.
    assert found("seele_run_failures_limit", **FIRST, **{"class": "disruption"}) == 20
    assert found("seele_run_checkpoint_step", **FIRST) == 40
    assert (found("seele_run_step", **FIRST), found("seele_run_steps_planned", **FIRST)) == (47, 100)
    assert found("seele_run_accuracy", **FIRST) == 0.25


def test_runs_are_counted_by_phase_and_new_ones_are_pending() -> None:
    found = seen(body("first"), body("second", phase="Running"), body("third", phase="Running"))
    phases = {phase: found("seele_operator_runs", phase=phase) for phase in get_args(RunPhase)}
    assert phases == dict.fromkeys(get_args(RunPhase), 0) | {"Pending": 1, "Running": 2}
    assert found("seele_run_phase", **FIRST, phase="Pending") == 1
    assert found("seele_run_checkpoint_step", **FIRST) is None


@pytest.mark.parametrize("status", ["broken", {"failures": 3, "attempt": "x", "step": None}, {"phase": 7}])
def test_a_malformed_status_hides_no_other_run(status: object) -> None:
    found = seen(body("first", phase="Running"), {**body("odd"), "status": status})
    assert found("seele_run_phase", **FIRST, phase="Running") == 1
    assert found("seele_operator_runs", phase="Running") == 1


def test_a_thousand_runs_are_exported_in_one_pass() -> None:
    metrics = OperatorMetrics()
    runs = [body(f"run-{number}", phase="Running", attempt=1, step=3, steps=9) for number in range(1000)]
    passes = []

    def listed() -> list[dict[str, Any]]:
        passes.append(1)
        return runs

    metrics.watch_runs(listed, lambda: 0)
    passes.clear()
    text = generate_latest(metrics.registry)
    # One pass for all metrics and runs.
    assert len(passes) == 1
    assert text.count(b"\nseele_run_") == 8 * 1000
