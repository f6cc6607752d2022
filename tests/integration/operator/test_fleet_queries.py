"""Every query of the dashboards that is about an operator or GPUs returns data on a real operator and played pods."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.support.cluster_runs import ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.dashboard_queries import PanelQuery, Seen, dashboard, legends, queries_of, source_of, title
from tests.support.operator_process import OperatorProcess
from tests.support.played_fleet import PlayedFleet, PlayedRun
from tests.support.pods_driver import PodsDriver
from tests.support.prometheus_server import Series
from tests.support.waiting import wait_for
from tools.grafana.dashboard import MARK_STEP

FLEET = [
    # One step of the annotations before, these runs were not watched yet.
    dataclasses.replace(one, expr=one.expr.replace(f"offset {MARK_STEP}", "offset 2s"))
    for one in queries_of("fleet")
]
RUN = [one for one in queries_of("run") if source_of(one) in ("operator", "gpu")]


@pytest.fixture(scope="module")
def seen(
    control_plane: ControlPlane,
    driver: PodsDriver,
    _operator: OperatorProcess,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Seen]:
    """Runs that train, restart, fail, succeed, are suspended, and wait for a node; the run `steady` has GPUs."""
    if not _operator.running:
        _operator.start()
    with ExitStack() as closing:

        def namespace() -> ClusterRuns:
            made = ClusterRuns(control_plane, driver, _operator)
            closing.callback(made.close)
            return made

        runs, others = namespace(), namespace()
        fleet = closing.enter_context(PlayedFleet(_operator, tmp_path_factory.mktemp("fleet"), runs, others))
        began = time.time()
        fleet.runs["restarts"] = PlayedRun(seed=1)
        fleet.gpus_of = "steady"
        driver.behave(others.namespace, schedule=False)
        others.make("waits")
        for name in ("steady", "restarts", "fails", "succeeds", "pauses"):
            runs.make(name)
        for name in ("steady", "restarts", "fails", "succeeds", "pauses"):
            runs.until("Running", name)
        wait_for(lambda: (runs.status("restarts").get("step") or 0) >= 2, "two steps")
        namespaces = f"{runs.namespace}|{others.namespace}"

        def scraped(attempt: int) -> str:
            # More than once, so that a step of the queried range has it.
            chosen = f'namespace=~"{namespaces}", run="restarts", attempt="{attempt}"'
            return f"count_over_time(seele_attempt{{{chosen}}}[1m]) > 2"

        # A quick machine has made two steps before the first scrape.
        wait_for(lambda: fleet.prometheus.query(scraped(1)), "Prometheus has seen the first attempt")
        driver.finish(runs.pod("trainer", 1, "restarts"), 1)
        driver.finish(runs.pod("trainer", 0, "fails"), 2)
        runs.finish_trainers("succeeds")
        runs.suspend(True, "pauses")
        runs.until("Failed", "fails")
        runs.until("Succeeded", "succeeds")
        runs.until("Suspended", "pauses")
        runs.restarted(name="restarts")
        wait_for(lambda: (runs.status("restarts").get("step") or 0) >= 1, "a step of the second attempt")
        there = f'count(seele_run_phase{{run_namespace=~"{namespaces}"}}) == 6'
        ready = f"({there}) and on() ({scraped(2)}) and on() (count(DCGM_FI_DEV_GPU_UTIL) == 4)"
        wait_for(lambda: fleet.prometheus.query(ready), "Prometheus has seen all of it")
        yield Seen(fleet.prometheus.url, began, time.time(), {"namespace": namespaces})


def one_run(seen: Seen, run: str) -> Seen:
    """The variables of the run's dashboard, with this run chosen."""
    first = seen.variables["namespace"].split("|")[0]
    return Seen(seen.url, seen.since, seen.until, {"namespace": first, "run": run})


def ask(seen: Seen, panel: str, legend: str | None = None) -> list[Series]:
    """The result of the first query of a panel of the fleet."""
    return seen.series(next(one for one in FLEET if one.where == panel and legend in (None, one.legend)))


@pytest.mark.parametrize("query", FLEET, ids=title)
def test_a_query_about_the_fleet_returns_data(query: PanelQuery, seen: Seen) -> None:
    assert seen.series(query), query.expr


@pytest.mark.parametrize("query", RUN, ids=title)
def test_a_query_about_a_run_and_its_operator_or_gpus_returns_data(query: PanelQuery, seen: Seen) -> None:
    assert one_run(seen, "steady").series(query), query.expr


def test_namespaces_can_be_chosen(seen: Seen) -> None:
    (namespaces,) = [one for one in dashboard("fleet")["templating"]["list"] if one["name"] == "namespace"]

    assert set(seen.choices(namespaces)) >= set(seen.variables["namespace"].split("|"))


def test_each_run_is_in_one_phase_and_has_one_row(seen: Seen) -> None:
    rows = [one for one in FLEET if one.where == "All runs"]
    phases = {one.labels["run"]: one.labels["phase"] for one in seen.series(rows[0])}

    assert phases == {
        "waits": "Pending",
        "steady": "Running",
        "restarts": "Running",
        "fails": "Failed",
        "succeeds": "Succeeded",
        "pauses": "Suspended",
    }
    # A table joins its queries by their labels: none may have more of them, or more rows.
    for one in rows[1:]:
        found = seen.series(one)
        assert {frozenset(series.labels) for series in found} == {frozenset({"namespace", "run"})}, one.expr
        assert len({series.labels["run"] for series in found}) == len(found)


def test_numbers_on_top_count_the_runs(seen: Seen) -> None:
    counted = {
        panel: ask(seen, panel)[0].values[-1]
        for panel in ("Running", "Starting", "Suspended", "Succeeded", "Failed", "Stalled", "Leading operators")
    }

    assert counted == {
        "Running": 2,
        "Starting": 1,
        "Suspended": 1,
        "Succeeded": 1,
        "Failed": 1,
        "Stalled": 0,
        "Leading operators": 1,
    }


def test_a_restart_is_seen_in_its_class_and_in_the_life_of_its_run(seen: Seen) -> None:
    restarts = {one.labels["class"]: max(one.values) for one in ask(seen, "Restarts by class")}
    (life,) = [one for one in ask(seen, "Phases of each run") if one.labels["run"] == "restarts"]

    assert legends(ask(seen, "Restarts"), "class") == {"application"}
    assert restarts["application"] > 0
    assert restarts["disruption"] == 0
    # Running, something else for a while, and Running again.
    changes = [number for number, _ in itertools.groupby(life.values)]
    assert changes.count(3) == 2
    assert changes[-1] == 3


def test_attempts_of_one_run_are_one_line_and_a_mark_each(seen: Seen) -> None:
    by_title = {one.where: one for one in reversed(queries_of("run"))}
    run = one_run(seen, "restarts")

    assert len(run.series(by_title["Reward and accuracy without hints"])) == 1
    assert legends(run.series(by_title["Starts and restarts"]), "attempt") == {"1", "2"}
    assert [one.labels["phase"] for one in run.series(by_title["Phase"])] == ["Running"]
    assert run.series(by_title["Attempt"])[0].values[-1] == 2


def test_gpus_are_found_whether_prometheus_renames_their_labels_or_not(seen: Seen) -> None:
    run = one_run(seen, "steady")
    (query,) = [one for one in RUN if one.where == "GPU power"]
    found = run.series(query)

    assert {(one.labels["pod"], one.labels["gpu"]) for one in found} >= {("steady-trainer-0", "0")}
    for job in ("dcgm", "dcgm-honoured"):
        alone = PanelQuery(
            "", query.expr.replace("DCGM_FI_DEV_POWER_USAGE{", f'DCGM_FI_DEV_POWER_USAGE{{job="{job}", '), ""
        )
        assert len(run.series(alone)) == 2, job
