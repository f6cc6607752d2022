"""What the operator tells Prometheus about itself. The names are a contract with dashboards and alerts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    disable_created_metrics,
)
from prometheus_client import ProcessCollector as Process

from seele_operator.run_metrics import RunsCollector
from seele_operator.status import FailureClass, RunStatus

ERROR_REASONS = ("unavailable", "not_leading", "conflict", "refused", "namespace_terminating", "bad_status", "internal")
"""Why a pass failed; `bad_status` is a status that no operator wrote, which is left alone."""

_PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_START_BUCKETS = (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400)


class OperatorMetrics:
    """All metrics of one operator process."""

    def __init__(self) -> None:
        # A series for the age of each series helps nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        Process(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        self.reconcile_seconds = Histogram(
            "seele_operator_reconcile_seconds",
            "Duration of one pass over one run.",
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "seele_operator_reconcile_errors_total",
            "Passes that failed, by reason; they are tried again.",
            ["reason"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "seele_operator_restarts_total",
            "Restarts of gangs after a failure, by the failure's class.",
            ["class"],
            registry=self.registry,
        )
        self.time_to_running = Histogram(
            "seele_operator_time_to_running_seconds",
            "From the start of a run until all its pods were running first.",
            buckets=_START_BUCKETS,
            registry=self.registry,
        )
        self.leader = Gauge(
            "seele_operator_leader", "1 while this operator holds the lease, 0 in a standby.", registry=self.registry
        )
        self.request_seconds = Histogram(
            "seele_operator_api_request_seconds",
            "Duration of requests to the API server.",
            ["verb"],
            buckets=_PASS_BUCKETS,
            registry=self.registry,
        )
        for reason in ERROR_REASONS:
            self.reconcile_errors.labels(reason)
        for failure in get_args(FailureClass):
            self.restarts.labels(failure)

    def watch_runs(self, runs: Callable[[], Iterable[Mapping[str, Any]]], waiting: Callable[[], int]) -> None:
        """Tell of the runs, by phase and one by one, and of the keys in line, whenever Prometheus asks."""
        self.registry.register(RunsCollector(runs))
        depth = Gauge("seele_operator_queue_depth", "Runs that wait for a pass over them.", registry=self.registry)
        depth.set_function(waiting)

    def request_seen(self, verb: str, status: int, seconds: float) -> None:
        """Note one request to the API server."""
        self.request_seconds.labels(verb).observe(seconds)

    def status_written(self, before: RunStatus, after: RunStatus) -> None:
        """Note what a new status says has happened."""
        if after.restarts > before.restarts and after.last_failure is not None:
            self.restarts.labels(after.last_failure.failure_class).inc(after.restarts - before.restarts)
        if before.running_time is None and after.running_time is not None and after.start_time is not None:
            self.time_to_running.observe(max(0.0, (after.running_time - after.start_time).total_seconds()))
