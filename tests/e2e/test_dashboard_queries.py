"""Every query of the run's dashboard returns data on a quickstart that a real Prometheus has watched."""

from dataclasses import replace

import pytest

from tests.e2e.watched_run import QuickstartRun
from tests.support.dashboard_queries import PanelQuery, Seen, dashboard, legends, queries_of, source_of, title
from tests.support.prometheus_server import QueryRefused

pytestmark = pytest.mark.timeout(1500)

QUERIES = [one for one in queries_of("run") if source_of(one) == "trainer"]
"""Those about an operator and GPUs are tested in tests/integration/operator/test_fleet_queries.py."""


@pytest.fixture(scope="module")
def seen(quickstart_run: QuickstartRun) -> Seen:
    """The whole run."""
    run = quickstart_run
    return Seen(run.prometheus.url, run.began, run.ended, {"namespace": "local", "run": "quickstart"})


@pytest.mark.parametrize("query", QUERIES, ids=title)
def test_a_query_returns_data(query: PanelQuery, seen: Seen) -> None:
    assert seen.series(query), query.expr


def test_the_run_can_be_chosen(seen: Seen) -> None:
    variables = {one["name"]: one for one in dashboard("run")["templating"]["list"]}

    assert seen.choices(variables["namespace"]) == ["local"]
    assert seen.choices(variables["run"]) == ["quickstart"]


def test_lines_are_split_as_their_legends_say(seen: Seen) -> None:
    def labels(panel: str, legend: str, label: str) -> set[str]:
        (query,) = [one for one in QUERIES if (one.where, one.legend) == (panel, legend)]
        return legends(seen.series(query), label)

    assert labels("Accuracy by round, against the target", "round {{round}}", "round") == {"1", "2", "3", "4"}
    assert labels("Where a step's time goes", "{{phase}}", "phase") >= {"rollout", "verify", "train", "sync"}
    assert labels("Requests at the rollout servers", "running, server {{server}}", "server") == {"0"}
    assert labels("Rollout servers", "{{state}}", "state") >= {"ready", "down"}
    assert len(labels("Hint rates of all rollouts", "{{le}}", "le")) == 21
    assert labels("Checkpoints", "checkpoint", "run") == {"quickstart"}


def test_shares_of_time_do_not_exceed_all_of_it(seen: Seen) -> None:
    (query,) = [one for one in QUERIES if one.where == "Share of all time"]
    at_the_end = replace(seen, since=seen.until - 1)

    assert 0.5 < sum(one.values[-1] for one in at_the_end.series(query)) < 1.1


def test_a_query_about_nothing_or_nonsense_would_be_found(seen: Seen) -> None:
    assert seen.series(PanelQuery("", 'seele_reward_mean{run="$run", namespace="elsewhere"}', "")) == []
    with pytest.raises(QueryRefused, match="parse error"):
        seen.series(PanelQuery("", "sum by (rate(seele_reward_mean)", ""))
