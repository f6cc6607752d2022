"""The command that draws a dashboard: see the package."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grafana.drawing.canvas import INK, Sheet
from grafana.drawing.data import Source
from grafana.drawing.graphs import Marks, graph, heat_map, timeline
from grafana.drawing.numbers import number, table
from grafana.prometheus import Prometheus

OVER_TIME = {"timeseries": graph, "heatmap": heat_map, "state-timeline": timeline}
NOW = {"stat": number, "table": table}


def draw(dashboard: Mapping[str, Any], source: Source, caption: str) -> tuple[Sheet, list[str]]:
    """The picture of a dashboard, and the titles of panels that are empty."""
    panels: Sequence[Mapping[str, Any]] = dashboard["panels"]
    lines = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    sheet = Sheet(lines, caption)
    marks: Marks = [(mark["iconColor"], source.moments(mark["expr"])) for mark in dashboard["annotations"]["list"]]
    empty = []
    for panel in panels:
        if panel["type"] == "row":
            _heading(sheet, panel)
            continue
        kind = panel["type"]
        full = OVER_TIME[kind](sheet, panel, source, marks) if kind in OVER_TIME else NOW[kind](sheet, panel, source)
        if not full:
            empty.append(panel["title"])
    return sheet, empty


def _heading(sheet: Sheet, row: Mapping[str, Any]) -> None:
    left, top, _, height = sheet.box(row["gridPos"])
    folded = f"   ({len(row['panels'])} panels)" if row["collapsed"] else ""
    sheet.words(left + 2, top + height / 2, "▸" if row["collapsed"] else "▾", INK)
    sheet.words(left + 18, top + height / 2, row["title"] + folded, INK, 11)


def main(arguments: Sequence[str]) -> int:
    """Draw, and say which panels are empty; 1 where there are any."""
    parser = argparse.ArgumentParser(prog="python -m grafana.drawing", description=draw.__doc__)
    parser.add_argument("dashboard", type=Path)
    parser.add_argument("--prometheus", required=True, help="its address, such as http://127.0.0.1:9090")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a PNG file")
    parser.add_argument("--since", type=float, help="seconds since the epoch; else a quarter of an hour ago")
    parser.add_argument("--until", type=float, help="seconds since the epoch; else now")
    parser.add_argument("--step", type=float, default=5.0, help="seconds between points")
    parser.add_argument("--set", action="append", default=[], metavar="VARIABLE=VALUE", dest="variables")
    parser.add_argument(
        "--caption",
        default="Drawn from the dashboard's JSON and a real Prometheus; Grafana's own looks a little different.",
    )
    given = parser.parse_args(arguments)
    until = given.until or time.time()
    since = given.since or until - 900
    variables = {
        "window": "1m",
        "__rate_interval": f"{4 * given.step:g}s",
        "__interval": f"{given.step:g}s",
        "__range": f"{until - since:.0f}s",
        **dict(one.split("=", 1) for one in given.variables),
    }
    source = Source(Prometheus(given.prometheus), since, until, given.step, variables)
    sheet, empty = draw(json.loads(given.dashboard.read_text(encoding="utf-8")), source, given.caption)
    sheet.save(given.out)
    for title in empty:
        print(f"empty: {title}", file=sys.stderr)
    print(f"{given.out}: {given.out.stat().st_size / 1000:.0f} kB, {sheet.width} x {sheet.height}")
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
