"""Pictures of dashboards: values in their units, every kind of panel, and panels without data by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from PIL import Image

from grafana.dashboard import Dashboard, Mark, Row
from grafana.drawing.__main__ import draw
from grafana.drawing.canvas import Entry, Sheet
from grafana.drawing.data import Source
from grafana.drawing.units import written
from grafana.looks import Limit, Look
from grafana.panels import Column, Graph, HeatMap, Number, Panel, Table, Timeline
from grafana.prometheus import Prometheus, Series
from grafana.queries import Query

pytestmark = pytest.mark.unit

BEGAN = 1_790_000_000.0


@pytest.mark.parametrize(
    ("value", "unit", "decimals", "text"),
    [
        (0.9734, "percentunit", 1, "97.3%"),
        (93.0, "percent", None, "93%"),
        (0.0042, "s", None, "4.2 ms"),
        (0.0, "s", None, "0 s"),
        (135.0, "s", 0, "2 min"),
        (4594.0, "short", None, "4.59 K"),
        (61440.0, "mbytes", None, "60 GiB"),
        (89128960.0, "bytes", None, "85 MiB"),
        (0.00003, "suffix: nats", None, "3.0e-05 nats"),
        (-2.4e-11, "suffix: nats", 6, "0.000000 nats"),
        (12.5, "reqps", None, "12.5 req/s"),
        (3e-4, "sci", None, "3.00e-04"),
        (7.0, "none", 0, "7"),
        (float("nan"), "none", None, "–"),
    ],
)
def test_a_value_is_written_as_grafana_does(value: float, unit: str, decimals: int | None, text: str) -> None:
    assert written(value, unit, decimals) == text


TABLE: dict[str, list[tuple[dict[str, str], Callable[[int], float]]]] = {
    "line": [({}, lambda step: 0.2 + step / 100)],
    "zero": [({}, lambda _: 0.0)],
    "long gap": [({}, lambda step: float("nan") if 100 <= step < 400 else 1.0)],
    "short gap": [({}, lambda step: float("nan") if 100 <= step < 200 else 1.0)],
    "buckets": [({"le": "1.0"}, lambda step: 1.0 + step), ({"le": "+Inf"}, lambda step: 5.0 + step)],
    "phases": [({"run": "a"}, lambda step: 1.0 if step < 30 else 2.0)],
    "row": [({"namespace": "n", "run": "a", "phase": "Running"}, lambda _: 1.0)],
    "share": [({"namespace": "n", "run": "a"}, lambda _: 0.4)],
    "mark": [({}, lambda step: 1.0 if step == 30 else float("nan"))],
}


class Answers(Prometheus):
    """Answers each expression from a table, whatever the time; unknown ones have no series."""

    def at(self, expr: str, moment: float) -> list[Series]:
        return [Series(labels, (moment,), (value(60),)) for labels, value in TABLE.get(expr, [])]

    def between(self, expr: str, since: float, until: float, step: float) -> list[Series]:
        times = tuple(since + step * number for number in range(int((until - since) / step) + 1))
        return [
            Series(labels, times, tuple(value(number) for number in range(len(times))))
            for labels, value in TABLE.get(expr, [])
        ]


def query(expr: str, legend: str = "it") -> tuple[Query, ...]:
    return (Query(expr, legend),)


def drawn(folder: Path, *panels: Panel, marks: tuple[Mark, ...] = ()) -> tuple[set[str], list[str]]:
    """Colours in the picture of a dashboard with these panels, and the titles of empty ones."""
    board = Dashboard(
        uid="u", title="t", description="", rows=(Row("", panels),), choices=(), marks=marks, since="", refresh="",
        other=("", ""),
    )  # fmt: skip
    source = Source(Answers(""), BEGAN, BEGAN + 60, 1.0, {})
    sheet, empty = draw(board.json(), source, "caption")
    sheet.save(folder / "picture.png")
    picture = Image.open(folder / "picture.png").convert("RGB")
    assert picture.size == (sheet.width, sheet.height)
    return {f"#{red:02x}{green:02x}{blue:02x}" for _, (red, green, blue) in picture.getcolors(10**7)}, empty


def test_lines_have_their_colour_limits_and_marks(tmp_path: Path) -> None:
    graph = Graph(
        title="g", description="", unit="none", queries=query("line"), fill=0, looks=(Look("it", "#ff00aa"),),
        limits=(Limit(0.5, "#00ffaa"),),
    )  # fmt: skip
    colours, empty = drawn(tmp_path, graph, marks=(Mark("m", "mark", "", "#0000ff"),))

    assert empty == []
    assert _near(colours, "#ff00aa")
    assert _near(colours, "#00ffaa")
    assert _near(colours, "#0000ff", far=150)


def test_a_number_takes_the_colour_of_the_limit_that_it_has_reached(tmp_path: Path) -> None:
    def number(limit: float) -> Number:
        limits = (Limit(limit, "#ff00aa"),)
        return Number(
            title="n", description="", unit="none", queries=query("line"), base="#00ffaa", limits=limits, line=False
        )

    assert _near(drawn(tmp_path, number(0.7))[0], "#ff00aa")
    assert not _near(drawn(tmp_path, number(0.9))[0], "#ff00aa")


def test_bars_and_cells_have_the_colours_of_what_they_mean(tmp_path: Path) -> None:
    timeline = Timeline(
        title="t", description="", unit="none", queries=query("phases", "{{run}}"),
        meanings={1: ("Pending", "#ff00aa"), 2: ("Running", "#00ffaa")},
    )  # fmt: skip
    table = Table(
        title="b", description="", unit="none", queries=(*query("row", ""), *query("share", "")),
        columns=(
            Column(field="run", title="Run"),
            Column(field="phase", title="Phase", colours={"Running": "#aa00ff"}),
            Column(field="Value #B", title="Share", unit="percentunit", gauge=True),
        ),
    )  # fmt: skip
    colours, empty = drawn(tmp_path, timeline, table)

    assert empty == []
    assert _near(colours, "#ff00aa", far=60)
    assert _near(colours, "#00ffaa", far=60)
    assert _near(colours, "#aa00ff")


def test_panels_without_data_are_named(tmp_path: Path) -> None:
    nothing = query("nothing")
    panels = (
        Graph(title="graph", description="", unit="none", queries=nothing),
        HeatMap(title="heat map", description="", unit="none", queries=nothing),
        Number(title="number", description="", unit="none", queries=nothing),
        HeatMap(title="full", description="", unit="none", queries=query("buckets", "{{le}}")),
    )

    assert drawn(tmp_path, *panels)[1] == ["graph", "heat map", "number"]


@pytest.mark.parametrize(("expr", "lines"), [("long gap", 2), ("short gap", 1)])
def test_lines_are_connected_over_scrapes_that_were_missed_and_not_over_restarts(expr: str, lines: int) -> None:
    _, axes = axes_of(Graph(title="g", description="", unit="none", queries=query(expr)), seconds=500)

    assert len(axes.get_lines()) == len(axes.collections) == lines


@pytest.mark.parametrize(("expr", "height"), [("long gap", 0.0), ("short gap", 1.0)])
def test_an_area_has_no_height_while_a_run_restarts(expr: str, height: float) -> None:
    _, axes = axes_of(Graph(title="g", description="", unit="none", queries=query(expr), stacked=True), seconds=500)
    moment = date2num(datetime.fromtimestamp(BEGAN + 150))
    (area,) = axes.collections
    corners = [y for path in area.get_paths() for x, y in path.vertices if abs(x - moment) < 1e-6]

    assert max(corners) == height


def test_an_axis_without_anything_on_it_has_more_than_one_tick() -> None:
    _, axes = axes_of(Graph(title="g", description="", unit="none", queries=query("zero")))

    assert len(axes.get_yticks()) > 2


def test_long_numbers_of_an_axis_stay_inside_of_their_panel() -> None:
    sheet, axes = axes_of(
        Graph(title="g", description="", unit="ops", queries=query("zero"), limits=(Limit(0.1, "#ff0000"),))
    )
    sheet.canvas.draw()
    left, *_ = sheet.box({"x": 0, "y": 0, "w": 8, "h": 8})
    labels = [text for text in axes.get_yticklabels() if text.get_text()]

    assert "0.025 ops/s" in [text.get_text() for text in labels]
    assert min(text.get_window_extent().x0 for text in labels) > left


def test_a_legend_that_is_cut_says_how_much_is_missing() -> None:
    sheet = Sheet(8, "caption")
    sheet.legend(0, 200, 100, [Entry(f"series number {number}", "#ff00aa") for number in range(12)])
    words = [text.get_text() for text in sheet.figure.texts]
    shown = [word for word in words if word.startswith("series")]

    assert f"+ {12 - len(shown)} more" in words
    assert 0 < len(shown) < 12

    everything = Sheet(8, "caption")
    everything.legend(0, 200, 100, [Entry(f"series number {number}", "#ff00aa") for number in range(3)])
    assert not [text for text in everything.figure.texts if "more" in text.get_text()]


def axes_of(panel: Panel, seconds: float = 60) -> tuple[Sheet, Axes]:
    """The picture of one panel, and the graph in it."""
    board = Dashboard(
        uid="u", title="t", description="", rows=(Row("", (panel,)),), choices=(), since="", refresh="", other=("", "")
    )
    sheet, _ = draw(board.json(), Source(Answers(""), BEGAN, BEGAN + seconds, 1.0, {}), "caption")
    return sheet, sheet.figure.axes[0]


def _near(colours: set[str], wanted: str, far: int = 40) -> bool:
    """Whether a colour is in the picture, give or take what smooth edges and few shades do to it."""

    def parts(colour: str) -> list[int]:
        return [int(part, 16) for part in re.findall("..", colour[1:])]

    return any(sum(abs(a - b) for a, b in zip(parts(one), parts(wanted), strict=True)) <= far for one in colours)
