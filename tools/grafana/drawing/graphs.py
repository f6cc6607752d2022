"""Panels over time: lines, areas, heat maps and timelines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import DateFormatter, date2num
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from grafana.drawing.canvas import FAINT, INK, PANEL, SMALL, Entry, Sheet
from grafana.drawing.data import Array, Line, Source
from grafana.drawing.looking import colour_of, defaults, look
from grafana.drawing.units import written
from grafana.panels import CONNECTED_SECONDS

Json = Mapping[str, Any]
Marks = Sequence[tuple[str, Sequence[float]]]
"""Colour of a kind of annotation, and its moments."""

_TICKS = (1, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
"""Seconds that ticks of the time axis can be apart."""

AXIS = 52
"""Pixels left of a graph for its numbers; longer ones get more."""


def graph(sheet: Sheet, panel: Json, source: Source, marks: Marks) -> bool:
    """Draw a panel of lines; whether there was anything to draw."""
    left, top, width, height = sheet.frame(panel["gridPos"], panel["title"])
    lines = [line for target in panel["targets"] for line in source.lines(target)]
    lines = [line for line in lines if np.isfinite(line.values).any()]
    if not lines:
        return _empty(sheet, left, top, width, height)
    said = defaults(panel)
    entries = [
        Entry(
            line.name, colour_of(panel, line.name, number), written(line.last, _unit(panel, line), said.get("decimals"))
        )
        for number, line in enumerate(lines)
    ]
    used = sheet.legend(left + 12, top + height, width - 20, entries)
    right = [line for line in lines if look(panel, line.name).get("custom.axisPlacement") == "right"]
    room = AXIS if right else 12
    axes = sheet.axes(left + AXIS, top + 4, width - AXIS - room, height - used - 26)
    dates = _dates(source.times)
    lower = np.zeros(len(dates))
    other = axes.twinx() if right else None
    for number, line in enumerate(lines):
        style = {"color": entries[number].colour, **_style(panel, line)}
        if _stacked(panel, line):
            upper = lower + np.nan_to_num(_without_gaps(line.values, source.step))
            step: Literal["post"] | None = "post" if _steps(panel) else None
            axes.fill_between(dates, lower, upper, step=step, color=style["color"], alpha=0.65, linewidth=0)
            lower = upper
            continue
        _line(other if other is not None and line in right else axes, panel, dates, line, style, source.step)
    _limits(axes, panel)
    _mark(axes, marks)
    _scale(axes, panel, [line for line in lines if line not in right], lower)
    if other is not None:
        _right_axis(other, look(panel, right[0].name)["unit"])
    _make_room(sheet, axes)
    _time_axis(axes, source)
    return True


def heat_map(sheet: Sheet, panel: Json, source: Source, marks: Marks) -> bool:
    """Draw how often each bucket was hit; whether there was anything to draw."""
    left, top, width, height = sheet.frame(panel["gridPos"], panel["title"])
    buckets = sorted(
        (line for line in source.lines(panel["targets"][0])), key=lambda line: float(line.labels.get("le", "nan"))
    )
    if not buckets or not any(np.nansum(line.values) > 0 for line in buckets):
        return _empty(sheet, left, top, width, height)
    counts = np.diff(np.array([np.zeros(len(source.times)), *(np.nan_to_num(one.values) for one in buckets)]), axis=0)
    used = np.flatnonzero(counts.sum(axis=1) > 1e-9)
    # Buckets beyond what was ever seen would only make the others small.
    last = used[-1] + 1
    counts, names = counts[:last], [one.labels["le"] for one in buckets[:last]]
    axes = sheet.axes(left + AXIS, top + 4, width - AXIS - 12, height - 26 - 8)
    shades = np.ma.masked_less_equal(counts, 1e-9) ** panel["options"]["color"]["exponent"]
    dates = _dates(source.times)
    edges = np.append(dates, dates[-1] + (dates[1] - dates[0]))
    axes.pcolormesh(edges, np.arange(last + 1), shades, cmap=panel["options"]["color"]["scheme"].lower(), vmin=0)
    axes.grid(visible=False)
    places = np.linspace(0, last, min(last, 5) + 1).round().astype(int)
    axes.set_yticks(places, [_bound(names, place, panel) for place in places])
    _mark(axes, marks)
    _time_axis(axes, source)
    return True


def timeline(sheet: Sheet, panel: Json, source: Source, marks: Marks) -> bool:
    """Draw a bar for each series, coloured by what its numbers mean; whether there was anything to draw."""
    left, top, width, height = sheet.frame(panel["gridPos"], panel["title"])
    lines = source.lines(panel["targets"][0])
    if not lines:
        return _empty(sheet, left, top, width, height)
    meanings: Json = defaults(panel)["mappings"][0]["options"]
    seen = sorted({str(int(value)) for line in lines for value in line.values[np.isfinite(line.values)]}, key=int)
    legend = [Entry(meanings[number]["text"], meanings[number]["color"]) for number in seen]
    used = sheet.legend(left + 12, top + height, width - 20, legend)
    space = max(sheet.length(line.name, SMALL) for line in lines) + 20
    axes = sheet.axes(left + space, top + 4, width - space - 12, height - used - 26)
    dates = _dates(source.times)
    wide = dates[1] - dates[0]
    for row, line in enumerate(lines):
        for start, stop, value in _stretches(line.values):
            meaning = meanings[str(int(value))]
            axes.barh(row, (stop - start) * wide, left=dates[start], height=0.82, color=meaning["color"], alpha=0.85)
            if (stop - start) / len(dates) > 0.09:
                middle = dates[start] + (stop - start) * wide / 2
                axes.text(middle, row, meaning["text"], color=PANEL, fontsize=SMALL - 0.5, ha="center", va="center")
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.set_yticks(range(len(lines)), [line.name for line in lines], color=INK)
    axes.grid(visible=False)
    _time_axis(axes, source)
    return True


def _line(axes: Axes, panel: Json, dates: Array, line: Line, style: dict[str, Any], apart: float) -> None:
    fill = look(panel, line.name).get("custom.fillOpacity", defaults(panel)["custom"]["fillOpacity"])
    drawn = "steps-post" if _steps(panel) else "default"
    step: Literal["post"] | None = "post" if _steps(panel) else None
    for where in _pieces(line.values, apart):
        x, y = dates[where], line.values[where]
        axes.plot(x, y, drawstyle=drawn, solid_capstyle="round", **style)
        if fill:
            axes.fill_between(x, y, 0, step=step, color=style["color"], alpha=fill / 100, linewidth=0)


def _style(panel: Json, line: Line) -> dict[str, Any]:
    dashed = "custom.lineStyle" in look(panel, line.name)
    return {"linestyle": (0, (5, 4)) if dashed else "-", "linewidth": 1.4}


def _stacked(panel: Json, line: Line) -> bool:
    return bool(
        defaults(panel)["custom"]["stacking"]["mode"] == "normal"
        and look(panel, line.name).get("custom.stacking", {}).get("mode") != "none"
    )


def _steps(panel: Json) -> bool:
    return bool(defaults(panel)["custom"]["lineInterpolation"] == "stepAfter")


def _unit(panel: Json, line: Line) -> str:
    return str(look(panel, line.name).get("unit", defaults(panel)["unit"]))


def _limits(axes: Axes, panel: Json) -> None:
    for step in defaults(panel)["thresholds"]["steps"][1:]:
        axes.axhline(step["value"], color=step["color"], linestyle=(0, (6, 4)), linewidth=1, alpha=0.9)


def _scale(axes: Axes, panel: Json, lines: Sequence[Line], stacked: Array) -> None:
    said = defaults(panel)
    values = np.concatenate([line.values[np.isfinite(line.values)] for line in lines] + [stacked])
    lowest = said.get("min", values.min() - 0.06 * (np.ptp(values) or 1.0))
    limits = [step["value"] for step in said["thresholds"]["steps"][1:]]
    highest = said.get("max", max([float(values.max()), *limits]) * 1.08)
    highest = highest if highest > lowest else lowest + 1
    axes.set_ylim(lowest, highest)
    if "max" in said and said["unit"] == "percentunit":
        axes.set_yticks(np.linspace(0, 1, 6))
    else:
        size = {"bytes": 2.0**20, "mbytes": 2.0**10}.get(said["unit"], 1.0)
        ticks = MaxNLocator(5, integer=said.get("decimals") == 0).tick_values(lowest / size, highest / size) * size
        axes.set_yticks([tick for tick in ticks if lowest <= tick <= highest])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, said["unit"]).removesuffix(" nats")))


def _make_room(sheet: Sheet, axes: Axes) -> None:
    """Move the left edge of a graph so far that its numbers stay inside of the panel."""
    wanted = max((sheet.length(text.get_text(), SMALL) for text in axes.get_yticklabels()), default=0.0) + 12
    place = axes.get_position()
    more = max(0.0, wanted - AXIS) / sheet.width
    axes.set_position((place.x0 + more, place.y0, place.width - more, place.height))


def _right_axis(axes: Axes, unit: str) -> None:
    axes.tick_params(colors=FAINT, labelsize=SMALL, length=0, pad=3)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, unit)))


def _mark(axes: Axes, marks: Marks) -> None:
    for colour, moments in marks:
        for date in _dates(np.asarray(moments)):
            axes.axvline(date, color=colour, linestyle=(0, (3, 3)), linewidth=0.9, alpha=0.75)


def _time_axis(axes: Axes, source: Source) -> None:
    first, last = _dates(np.array([source.since, source.until]))
    axes.set_xlim(first, last)
    wide = source.until - source.since
    apart = next((one for one in _TICKS if wide / one <= 6), _TICKS[-1])
    # The first would stand below the number of the other axis.
    ticks = np.arange(np.ceil((source.since + wide * 0.04) / apart) * apart, source.until, apart)
    axes.set_xticks(_dates(ticks))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M" if apart >= 60 else "%H:%M:%S"))


def _dates(times: Array) -> Array:
    return np.asarray(date2num([datetime.fromtimestamp(float(time)) for time in times]), dtype=np.float64)


def _bound(names: Sequence[str], place: int, panel: Json) -> str:
    if place == 0:
        return "0"
    bound = float(names[place - 1])
    return "∞" if math.isinf(bound) else written(bound, defaults(panel)["unit"])


def _pieces(values: Array, step: float) -> list[NDArray[np.intp]]:
    """The places that have a value, apart where Grafana is told not to connect them."""
    known = np.flatnonzero(np.isfinite(values))
    return np.split(known, np.flatnonzero(np.diff(known) * step > CONNECTED_SECONDS) + 1)


def _without_gaps(values: Array, step: float) -> Array:
    """With the last value in gaps that are connected."""
    filled = values.copy()
    for known in _pieces(values, step):
        filled[known[0] : known[-1]] = np.repeat(values[known[:-1]], np.diff(known))
    return filled


def _stretches(values: Array) -> list[tuple[int, int, float]]:
    """Start, end and value of each stretch over which a value stays the same."""
    found: list[tuple[int, int, float]] = []
    for place, value in enumerate(values):
        if not np.isfinite(value):
            continue
        if found and found[-1][1] == place and found[-1][2] == value:
            found[-1] = (found[-1][0], place + 1, value)
        else:
            found.append((place, place + 1, float(value)))
    return found


def _empty(sheet: Sheet, left: float, top: float, width: float, height: float) -> bool:
    sheet.words(left + width / 2, top + height / 2 - 10, "No data", FAINT, ha="center")
    return False
