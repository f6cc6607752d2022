"""The dashboards' files: complete, without overlaps, explained, and about existing metrics."""

import itertools
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, get_args

import pytest
import yaml

from seele_operator.api.status import FailureClass, RunPhase
from seele_trainer.rollout.protocol import ServerState
from seele_trainer.telemetry.definitions import STEP_METRICS, TIME_METRICS
from tests.support.dashboard_queries import (
    PanelQuery,
    dashboard,
    panels,
    queries,
    queries_of,
    series_names,
    with_variables,
)
from tests.support.prometheus_server import RULES
from tests.support.run_folder import step_record
from tools.grafana import fleet, run
from tools.grafana.dashboard import Dashboard, Row
from tools.grafana.looks import PHASE_COLOURS
from tools.grafana.panels import Graph

DASHBOARDS = {name: dashboard(name) for name in ("run", "fleet")}
PANELS = [pytest.param(panel, id=panel["title"]) for board in DASHBOARDS.values() for panel in panels(board)]
QUERIES = [one for name in DASHBOARDS for one in queries_of(name)]

DCGM = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_PROF_SM_ACTIVE", "DCGM_FI_DEV_POWER_USAGE"}
"""Fields in the exporter's default list; SM_ACTIVE is commented out there, as its panel says."""
FREE_BELOW = {"Ability µ of fitted curves", "Loss terms"}
"""Panels whose values may be negative."""
NEITHER = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes"}
"""Series of Prometheus itself and of its client library."""

WORDS: Mapping[str, Collection[str]] = {
    **{one.name: tuple(one.read(step_record(1))) for one in (*STEP_METRICS, *TIME_METRICS) if one.label},
    "seele_rollout_servers": get_args(ServerState),
    **dict.fromkeys(("seele_run_phase", "seele_operator_runs"), get_args(RunPhase)),
    **dict.fromkeys(
        ("seele_run_failures", "seele_run_failures_limit", "seele_operator_restarts_total"), get_args(FailureClass)
    ),
}
"""Possible values of a metric's own label."""
FREE = {"round": r"[1-9]\d*", "benchmark": ".+"}
"""Labels whose values depend on a run's spec."""


def names_of(query: PanelQuery) -> str:
    """Possible names of a query's series, as a regular expression."""

    def values(label: str) -> str:
        if label in FREE:
            return FREE[label]
        written = re.findall(rf'"{label}", "([^"$]+)", "", ""', query.expr)
        words = set(written).union(*(WORDS.get(metric, ()) for metric in query.metrics))
        assert words, f"{query.where}: what are the values of {label}?"
        return "|".join(map(re.escape, sorted(words)))

    parts = re.split(r"\{\{(\w+)\}\}", query.legend)
    return "".join(f"({values(part)})" if place % 2 else re.escape(part) for place, part in enumerate(parts))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_unique_ids_and_titles(name: str) -> None:
    board = DASHBOARDS[name]
    everything = [*board["panels"], *(panel for row in board["panels"] for panel in row.get("panels", []))]

    assert [count for count in Counter(panel["id"] for panel in everything).values() if count > 1] == []
    assert [title for title, count in Counter(panel["title"] for panel in everything).items() if count > 1] == []


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_do_not_overlap_or_exceed_the_width(name: str) -> None:
    board = DASHBOARDS[name]
    for visible in (board["panels"], *(row["panels"] for row in board["panels"] if row.get("panels"))):
        taken: set[tuple[int, int]] = set()
        for panel in visible:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24, panel["title"]
            cells = {
                (place["x"] + column, place["y"] + line) for column in range(place["w"]) for line in range(place["h"])
            }
            assert not cells & taken, panel["title"]
            taken |= cells


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_can_be_provisioned_unchanged(name: str) -> None:
    board = DASHBOARDS[name]
    declared = {variable["name"] for variable in board["templating"]["list"]}

    assert "__inputs" not in board
    assert board["uid"] == f"seele-{name}"
    assert (
        board["templating"]["list"][0] | {"type": "datasource", "query": "prometheus"} == board["templating"]["list"][0]
    )
    sources = [panel["datasource"] for panel in panels(board)]
    sources += [target["datasource"] for panel in panels(board) for target in panel["targets"]]
    sources += [one["datasource"] for one in [*board["annotations"]["list"], *board["templating"]["list"][1:-1]]]
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    used = {match for one in queries_of(name) for match in re.findall(r"\$(\w+)", one.expr.replace('"$1"', ""))}
    assert used - {"__rate_interval", "__range"} <= declared
    assert declared - used <= {"datasource", "run"}


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_describes_what_it_shows(panel: dict[str, Any]) -> None:
    defaults = panel["fieldConfig"]["defaults"]

    assert panel["description"].endswith(".")
    assert 20 <= len(panel["description"]) <= 128
    assert defaults["unit"]
    assert defaults["thresholds"]["steps"]
    if panel["title"] not in FREE_BELOW:
        assert defaults["min"] == 0
    if defaults["unit"] == "percentunit" and panel["title"] != "CPU":
        assert defaults["max"] == 1
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all(target["legendFormat"] for target in panel["targets"]) or panel["type"] == "table"


@pytest.mark.parametrize("panel", PANELS)
def test_overrides_match_series_of_their_panel(panel: dict[str, Any]) -> None:
    names = [column["matcher"]["options"] for column in panel["fieldConfig"]["overrides"]]
    if panel["type"] == "table":
        renamed = panel["transformations"][1]["options"]["renameByName"]
        assert set(names) == set(renamed.values())
        return
    for name in names:
        legends = [names_of(query) for query in queries(panel)]
        assert any(re.fullmatch(legend, name) for legend in legends), f"{name} fits none of {legends}"


def test_every_phase_of_a_run_has_a_colour() -> None:
    assert tuple(PHASE_COLOURS) == get_args(RunPhase)


def test_all_metrics_in_queries_exist() -> None:
    known = series_names() | DCGM | NEITHER
    wanted = {name for one in QUERIES for name in one.metrics}

    assert len(wanted) > 50
    assert wanted - known == set()
    # Without all known names, no other series is left in an expression.
    for one in QUERIES:
        assert one.metrics, one.expr
        assert not re.search(
            r"(seele|vllm|DCGM)[\w:]*(?=\{)", re.sub("|".join(sorted(known, key=len, reverse=True)), "", one.expr)
        )


def test_an_unknown_metric_would_be_found() -> None:
    made_up = PanelQuery("panel", 'sum(rate(seele_nonsense_total{run="$run"}[5m])) / seele_training_step', "")

    assert made_up.metrics == {"seele_nonsense_total", "seele_training_step"}
    assert made_up.metrics - series_names() == {"seele_nonsense_total"}


def test_the_stalled_tile_has_the_conditions_of_its_alert() -> None:
    (tile,) = [one for one in QUERIES if one.where == "Stalled"]
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    (alert,) = [rule["expr"] for rule in rules if rule.get("alert") == "SeeleRunStalled"]

    conditions = tile.expr.replace('{namespace=~"$namespace"}', "")
    assert conditions == f"count(max by (namespace, run) ({' '.join(alert.split())})) or on() vector(0)"


def test_the_mismatch_is_limited_as_in_its_alert() -> None:
    (panel,) = [one for one in panels(DASHBOARDS["run"]) if one["title"].startswith("Mismatch")]
    (limit,) = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"] if step["value"]]

    assert panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"] == {"mode": "dashed"}
    assert f"avg_over_time(seele_policy_mismatch_kl[15m]) > {limit}\n" in RULES.read_text()


def test_restarts_are_compared_with_the_step_before() -> None:
    (mark,) = DASHBOARDS["fleet"]["annotations"]["list"]

    assert re.fullmatch(rf"(.+)\) > \1 offset {mark['step']}\)", mark["expr"])


def test_rounds_and_their_target_have_distinct_colours() -> None:
    by_title = {panel["title"]: panel for panel in panels(DASHBOARDS["run"])}
    colours = [
        bytes.fromhex(one["value"]["fixedColor"].removeprefix("#"))
        for override in by_title["Accuracy by round, against the target"]["fieldConfig"]["overrides"]
        for one in override["properties"]
        if one["id"] == "color"
    ]

    assert len(colours) == 9
    for one, other in itertools.combinations(colours, 2):
        assert sum(abs(a - b) for a, b in zip(one, other, strict=True)) > 80


def test_the_dashboards_link_to_each_other() -> None:
    assert DASHBOARDS["run"]["links"][0]["url"] == f"/d/{fleet.UID}"
    assert DASHBOARDS["fleet"]["links"][0]["url"] == f"/d/{run.UID}"
    (table,) = [panel for panel in panels(DASHBOARDS["fleet"]) if panel["type"] == "table"]
    links = [
        one["value"][0]["url"]
        for column in table["fieldConfig"]["overrides"]
        for one in column["properties"]
        if one["id"] == "links"
    ]
    assert links == [
        f"/d/{run.UID}?var-datasource=${{datasource}}&var-namespace=${{__data.fields.namespace}}"
        "&var-run=${__data.fields.run}&${__url_time_range}"
    ]


def test_gpu_panels_are_not_queried_until_their_row_is_opened() -> None:
    gpu = [row for row in DASHBOARDS["run"]["panels"] if row["type"] == "row" and row["collapsed"]]

    assert [row["title"] for row in gpu] == ["GPUs (needs the DCGM exporter)"]
    assert {name for panel in gpu[0]["panels"] for one in queries(panel) for name in one.metrics} == DCGM
    open_panels = [panel for panel in DASHBOARDS["run"]["panels"] if panel["type"] != "row"]
    assert not {name for panel in open_panels for one in queries(panel) for name in one.metrics} & DCGM


def test_panels_are_placed_from_left_to_right_and_then_below() -> None:
    def graph(title: str, width: int, height: int) -> Graph:
        return Graph(title, "none", width=width, height=height).query("up", "up")

    board = Dashboard(
        uid="u",
        title="t",
        description="",
        rows=(
            Row("", (graph("a", 12, 8), graph("b", 12, 6), graph("c", 24, 5))),
            Row("folded", (graph("d", 8, 8),), folded=True),
            Row("open", (graph("e", 8, 8),)),
        ),
        choices=(),
        since="now-1h",
        refresh="1m",
        other=("", ""),
    ).json()

    places = {one["title"]: tuple(one["gridPos"][key] for key in "xywh") for one in board["panels"]}
    assert places == {
        "a": (0, 0, 12, 8),
        "b": (12, 0, 12, 6),
        "c": (0, 8, 24, 5),
        "folded": (0, 13, 24, 1),
        "open": (0, 14, 24, 1),
        "e": (0, 15, 8, 8),
    }
    assert [panel["title"] for panel in board["panels"][3]["panels"]] == ["d"]


def test_variables_are_replaced_and_an_unknown_one_is_named() -> None:
    values = {"run": "r", "__range": "5m"}
    assert with_variables('a{run="$run", x="${run:raw}"}[$__range]', values) == 'a{run="r", x="r"}[5m]'
    assert (
        with_variables('label_replace(a, "b", "$1", "run", "(.+)")', {}) == 'label_replace(a, "b", "$1", "run", "(.+)")'
    )
    with pytest.raises(KeyError, match="unknown"):
        with_variables("$unknown", {})
