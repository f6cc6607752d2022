"""What the operator tells Prometheus about the runs, read from their statuses when it is asked: nothing can go astray."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from seele_operator.spec import RunPolicy
from seele_operator.status import FailureClass, Phase

Body = Mapping[str, Any]

_PHASES: tuple[str, ...] = get_args(Phase)
_LIMITS = {
    "application": RunPolicy.model_fields["backoff_limit"],
    "disruption": RunPolicy.model_fields["disruption_limit"],
}
"""Fields of runPolicy, by class of failures."""
_RUN = ("run_namespace", "run")
"""Labels of a run. `namespace` would be taken for that of the operator, which Prometheus puts on every series."""


class RunsCollector(Collector):
    """All runs by phase, and of each run where it stands: ten series a run at most."""

    def __init__(self, runs: Callable[[], Iterable[Body]]) -> None:
        self._runs = runs

    def collect(self) -> list[GaugeMetricFamily]:
        """One pass over the runs."""
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
        found = Counter[str]()
        for body in runs:
            found[self._add(body)] += 1
        for phase in _PHASES:
            self.by_phase.add_metric([phase], found[phase])
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
    # A status that no operator wrote must not keep Prometheus from all other runs.
    found = body.get(name)
    return found if isinstance(found, Mapping) else {}


def _put(family: GaugeMetricFamily, labels: list[str], value: object) -> None:
    if isinstance(value, (int, float)):
        family.add_metric(labels, value)
