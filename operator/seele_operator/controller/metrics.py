"""The operator's Prometheus metrics. Their names are a contract with dashboards and alerts."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from seele_operator.api.seelerun import RunPolicy
from seele_operator.api.status import FailureClass, RunPhase, RunStatus

Body = Mapping[str, Any]

_PHASES: tuple[str, ...] = get_args(RunPhase)

_LIMITS = {
    "application": RunPolicy.model_fields["backoff_limit"],
    "disruption": RunPolicy.model_fields["disruption_limit"],
}
"""Fields of runPolicy, by class of failures."""

_RUN = ("run_namespace", "run")
"""Labels of a run. Not `namespace`: Prometheus puts the operator's namespace on every series under that name."""


class RunsCollector(Collector):
    """The number of runs by phase and the state of each run: at most ten series per run."""

    def __init__(self, runs: Callable[[], Iterable[Body]]) -> None:
        self._runs = runs

    def collect(self) -> list[GaugeMetricFamily]:
        """The current values."""
        return list(_Families().of(self._runs()))


class _Families:
    def __init__(self) -> None:
        def gauge(name: str, help: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(name, help, labels=[*_RUN, *labels])

        self.by_phase = GaugeMetricFamily("seele_operator_runs", "Runs, by phase.", labels=["phase"])
        self.phase = gauge("seele_run_phase", "1 for the phase that the run is in; other phases are left out.", "phase")
        self.attempt = gauge("seele_run_attempt", "Number of the run's present attempt, from 1.")
        self.failures = gauge(
            "seele_run_failures", "Failures of the run since it last got further, by class of failure.", "class"
        )
        self.limit = gauge(
            "seele_run_failures_limit", "Failures of a class that the run's policy allows; one more ends it.", "class"
        )
        self.checkpoint = gauge("seele_run_checkpoint_step", "Training steps in the run's latest checkpoint.")
        self.step = gauge("seele_run_step", "Training steps that the run has done.")
        self.steps = gauge("seele_run_steps_planned", "Training steps that the run is going to make.")
        self.accuracy = gauge("seele_run_accuracy", "Latest accuracy of the run without hints, 0 to 1.")

    def of(self, runs: Iterable[Body]) -> Iterable[GaugeMetricFamily]:
        phases = [self._add(body) for body in runs]
        for phase in _PHASES:
            self.by_phase.add_metric([phase], phases.count(phase))
        return vars(self).values()

    def _add(self, body: Body) -> str:
        metadata, status = _part(body, "metadata"), _part(body, "status")
        run = [str(metadata.get("namespace", "")), str(metadata.get("name", ""))]
        phase = str(status.get("phase", _PHASES[0]))
        self.phase.add_metric([*run, phase], 1)
        counted, policy = _part(status, "failures"), _part(_part(body, "spec"), "runPolicy")
        for kind in get_args(FailureClass):
            limit = _LIMITS[kind]
            _put(self.failures, [*run, kind], counted.get(kind, 0))
            _put(self.limit, [*run, kind], policy.get(str(limit.alias), limit.default))
        _put(self.attempt, run, status.get("attempt", 0))
        _put(self.checkpoint, run, _part(status, "lastCheckpoint").get("step"))
        _put(self.step, run, status.get("step"))
        _put(self.steps, run, status.get("steps"))
        _put(self.accuracy, run, status.get("accuracy"))
        return phase


def _part(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    # One malformed status must not hide all other runs from Prometheus.
    found = body.get(name)
    return found if isinstance(found, Mapping) else {}


def _put(family: GaugeMetricFamily, labels: list[str], value: object) -> None:
    if isinstance(value, (int, float)):
        family.add_metric(labels, value)


ERROR_REASONS = ("unavailable", "not_leading", "conflict", "refused", "namespace_terminating", "bad_status", "internal")
"""Why a pass failed; `bad_status` is a status that no operator wrote, whose run is not touched."""

_PASS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

_START_BUCKETS = (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 14400)


class OperatorMetrics:
    """The metrics of one operator process."""

    def __init__(self) -> None:
        # The extra series with the creation time of each series have no use.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
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
        """Export the runs and the length of the queue from now on."""
        self.registry.register(RunsCollector(runs))
        depth = Gauge("seele_operator_queue_depth", "Runs that wait for a pass over them.", registry=self.registry)
        depth.set_function(waiting)

    def request_seen(self, verb: str, status: int, seconds: float) -> None:
        """Count a request to the API server."""
        self.request_seconds.labels(verb).observe(seconds)

    def status_written(self, before: RunStatus, after: RunStatus) -> None:
        """Count the restarts and starts that a new status contains."""
        if after.restarts > before.restarts and after.last_failure is not None:
            self.restarts.labels(after.last_failure.failure_class).inc(after.restarts - before.restarts)
        if before.running_time is None and after.running_time is not None and after.start_time is not None:
            self.time_to_running.observe(max(0.0, (after.running_time - after.start_time).total_seconds()))
