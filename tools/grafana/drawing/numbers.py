"""Panels that show the present: large numbers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.patches import Rectangle

from grafana.drawing.canvas import FAINT, GRID, INK, NORMAL, PANEL, SMALL, Sheet
from grafana.drawing.data import Line, Source
from grafana.drawing.looking import colour_at, defaults, look
from grafana.drawing.units import written

Json = Mapping[str, Any]

ROW = 27
"""Pixels of a table's row."""


def number(sheet: Sheet, panel: Json, source: Source) -> bool:
    """Draw a large number, or the name of its series; whether there was anything to draw."""
    left, top, width, height = sheet.frame(panel["gridPos"], panel["title"])
    lines = [line for target in panel["targets"] for line in source.lines(target)]
    lines = [line for line in lines if np.isfinite(line.values).any()]
    said, show = defaults(panel), panel["options"]["textMode"]
    if not lines:
        sheet.words(left + width / 2, top + height / 2 - 4, said["noValue"], FAINT, 17, ha="center")
        return False
    if panel["options"]["graphMode"] == "area":
        _faint_line(sheet, panel, source, lines[0], (left, top + height * 0.5, width, height * 0.5))
    for place, line in enumerate(lines):
        fixed = look(panel, line.name).get("color")
        colour = str(fixed["fixedColor"]) if fixed else colour_at(said["thresholds"], line.last)
        text = line.name if show == "name" else written(line.last, said["unit"], said.get("decimals"))
        x, y = left + width * (place + 0.5) / len(lines), top + height / 2 - 6
        if show == "value_and_name":
            sheet.words(x, y - 24, line.name, FAINT, SMALL, ha="center")
        size = 22.0 if len(lines) == 1 else 19.0
        while sheet.length(text, size) > width / len(lines) - 12:
            size -= 1
        sheet.words(x, y, text, colour, size, ha="center")
    return True


def table(sheet: Sheet, panel: Json, source: Source) -> bool:
    """Draw the merged rows of a table's queries; whether there was anything to draw."""
    left, top, width, height = sheet.frame(panel["gridPos"], panel["title"])
    columns, rows = _merged(panel, source)
    shares = np.array([look(panel, title).get("custom.width") or 0 for title in columns], dtype=float)
    shares[shares == 0] = (width - 20 - shares.sum()) / max(1, (shares == 0).sum())
    starts = left + 12 + np.concatenate(([0], np.cumsum(shares)[:-1]))
    for x, title in zip(starts, columns, strict=True):
        sheet.words(x, top + 10, title, "#6E9FFF", SMALL + 0.5, weight="bold")
    for place, row in enumerate(rows[: int((height - 24) // ROW)]):
        y = top + 10 + ROW * (place + 1)
        _rule(sheet, left + 8, y - ROW / 2, width - 16)
        for x, share, title in zip(starts, shares, columns, strict=True):
            _cell(sheet, look(panel, title), row.get(title, ""), (x, y, share))
    return bool(rows)


def _merged(panel: Json, source: Source) -> tuple[list[str], list[dict[str, Any]]]:
    """Titles of the columns, and a value by title for each row, as Grafana's transformations make them."""
    organised = panel["transformations"][1]["options"]
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for place, target in enumerate(panel["targets"]):
        for one in source.rows(target):
            row = found.setdefault((one.labels.get("namespace", ""), one.labels.get("run", "")), {})
            row |= {**one.labels, f"Value #{chr(ord('A') + place)}": one.values[0]}
    titles: dict[str, str] = organised["renameByName"]
    fields = sorted(titles, key=organised["indexByName"].__getitem__)
    rows = [{titles[name]: row[name] for name in fields if name in row} for row in found.values()]
    for key in reversed(panel["options"]["sortBy"]):
        rows.sort(key=lambda row: str(row.get(key["displayName"], "")), reverse=key["desc"])
    return [titles[name] for name in fields], rows


def _cell(sheet: Sheet, said: Json, value: Any, place: tuple[float, float, float]) -> None:
    x, y, share = place
    if value == "":
        return
    if isinstance(value, str):
        mapped = said["mappings"][0]["options"].get(value, {}) if "mappings" in said else {}
        colour = mapped.get("color", "#6E9FFF" if "links" in said else INK)
        sheet.words(x, y, value, colour, NORMAL)
        return
    text = written(value, said["unit"], said.get("decimals"))
    colour = colour_at(said["thresholds"], value) if "thresholds" in said else INK
    if said.get("custom.cellOptions", {}).get("type") == "gauge":
        bar = share - 66
        _bar(sheet, (x, y - 7, bar, 14), GRID)
        _bar(sheet, (x, y - 7, bar * min(1.0, max(0.0, value)), 14), "#73BF69")
        x += bar + 8
    sheet.words(x, y, text, INK if colour == "text" else colour, NORMAL)


def _faint_line(sheet: Sheet, panel: Json, source: Source, line: Line, box: tuple[float, float, float, float]) -> None:
    known = np.isfinite(line.values)
    if known.sum() < 2:
        return
    colour = colour_at(defaults(panel)["thresholds"], line.last)
    axes = sheet.axes(*box)
    axes.set_axis_off()
    axes.patch.set_facecolor(PANEL)
    axes.plot(source.times[known], line.values[known], color=colour, linewidth=1, alpha=0.6)
    axes.fill_between(source.times[known], line.values[known], 0, color=colour, alpha=0.12, linewidth=0)
    axes.set_xlim(source.since, source.until)
    top = float(np.nanmax(line.values))
    axes.set_ylim(0, top * 1.1 if top > 0 else 1)


def _bar(sheet: Sheet, box: tuple[float, float, float, float], colour: str) -> None:
    x, y, width, height = box
    corner = (x / sheet.width, 1 - (y + height) / sheet.height)
    size = (width / sheet.width, height / sheet.height)
    sheet.figure.add_artist(Rectangle(corner, *size, facecolor=colour, linewidth=0, transform=sheet.figure.transFigure))


def _rule(sheet: Sheet, x: float, y: float, width: float) -> None:
    _bar(sheet, (x, y, width, 1), GRID)
