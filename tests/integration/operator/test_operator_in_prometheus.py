"""A real Prometheus scrapes a real operator: the metrics of each run, and the alerts."""

import time
from collections.abc import Iterator

import pytest

from tests.support.cluster_runs import ClusterRuns
from tests.support.operator_process import OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.prometheus_server import RULES, Job, PrometheusServer, ScrapeTargets, complaints_about_metrics
from tests.support.waiting import wait_for
from tools.metrics_page import operator_rows


@pytest.fixture
def prometheus(operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrometheusServer]:
    folder = tmp_path_factory.mktemp("prometheus")
    targets = ScrapeTargets(folder / "operator.json")
    targets.write(operator.url.removeprefix("http://"), namespace="seele-system", pod="operator-1")
    with PrometheusServer(folder, [Job("seele-operator", targets)], [RULES]) as server:
        yield server


def test_the_life_of_a_run_is_visible_in_prometheus(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess, prometheus: PrometheusServer
) -> None:
    own = f'run_namespace="{runs.namespace}",run="run"'

    def shown(name: str, more: str = "") -> list[float]:
        return [one.value for one in prometheus.query(f"{name}{{{own}{more}}}")]

    def until(expected: float, name: str, more: str = "") -> None:
        wait_for(lambda: shown(name, more) == [expected], lambda: f"{name}: {shown(name, more)}")

    def pending_or_firing() -> set[str]:
        # Of this run or of no run: other tests leave failures behind. A restarting run may count as not starting.
        found = prometheus.query(f'ALERTS{{{own}}} or ALERTS{{run=""}}')
        return {one.labels["alertname"] for one in found} - {"SeeleRunNotStarting"}

    def until_alerts(*expected: str) -> None:
        wait_for(lambda: pending_or_firing() == set(expected), lambda: f"alerts are {pending_or_firing()}")

    runs.running()
    driver.trainer(runs.pod("trainer")).at(7, accuracy=0.25, lastCheckpointStep=5)
    until(7, "seele_run_step")
    until(1, "seele_run_phase", ',phase="Running"')
    assert shown("seele_run_attempt") == [1]
    assert shown("seele_run_checkpoint_step") == [5]
    assert shown("seele_run_steps_planned") == [20]
    assert shown("seele_run_accuracy") == [0.25]
    assert shown("seele_run_failures_limit", ',class="application"') == [3]
    until_alerts()

    # Every metric of the operator exists, with the documented labels.
    outer = {"job", "instance", "namespace", "pod", "__name__", "le"}
    for row in operator_rows():
        name = f"{row.name}_count" if row.kind == "histogram" else row.name
        samples = prometheus.query(name)
        assert samples, name
        assert {label for one in samples for label in one.labels} - outer == set(row.labels), name
    text = operator.get("/metrics")
    assert text
    assert complaints_about_metrics(text) == ""

    for failures in (1, 2):
        driver.finish(runs.pod("trainer"), 1)
        runs.restarted(attempt=failures + 1)
        until(failures, "seele_run_failures", ',class="application"')
        until(failures + 1, "seele_run_attempt")
        now = time.time()
        wait_for(lambda now=now: prometheus.query(f"timestamp(up) > {now} + 2"), "the rules have seen it")
        until_alerts(*(["SeeleRestartsNearBudget"] if failures == 2 else []))

    # A trainer with bad input is not restarted, which resolves the alert about restarts.
    driver.finish(runs.pod("trainer"), 2)
    until(1, "seele_run_phase", ',phase="Failed"')
    until_alerts("SeeleRunFailed")

    # Without the operator nothing is known about the run: only its absence is reported.
    operator.kill()
    until_alerts("SeeleOperatorDown")
