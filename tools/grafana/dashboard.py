"""A dashboard: rows of panels laid out on Grafana's grid, variables, annotations and links."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tools.grafana.panels import Json, Panel
from tools.grafana.queries import DATASOURCE

COLUMNS = 24
SCHEMA = 37
"""Of Grafana 9; later versions migrate it automatically."""

MARK_STEP = "30s"
"""Interval at which the queries of annotations are evaluated."""

WINDOW = "$window"
"""Window for counters that move once per step; it grows with the time range."""

RATE = "$__rate_interval"
"""Window for counters that move all the time: a few scrapes, computed by Grafana."""


@dataclass(frozen=True)
class Row:
    """Panels under a heading, placed from left to right, then below. A folded row is not queried until it is opened."""

    title: str
    panels: tuple[Panel, ...]
    folded: bool = False


@dataclass(frozen=True)
class Choice:
    """A variable whose values are those of a label: `query` is Grafana's `label_values(…)`."""

    name: str
    title: str
    query: str
    many: bool = False
    """Whether several values can be selected, initially all."""

    def json(self) -> Json:
        """The variable."""
        every = {"selected": True, "text": ["All"], "value": ["$__all"]} if self.many else {}
        return {
            "type": "query",
            "name": self.name,
            "label": self.title,
            "datasource": DATASOURCE,
            "definition": self.query,
            "query": {"query": self.query, "refId": "StandardVariableQuery"},
            "current": every,
            "includeAll": self.many,
            "multi": self.many,
            "hide": 0,
            "options": [],
            "refresh": 2,  # whenever the time range changes, since runs come and go
            "regex": "",
            "skipUrlSync": False,
            "sort": 1,
        }


@dataclass(frozen=True)
class Mark:
    """An annotation: vertical lines at times when an expression has a value."""

    name: str
    expr: str
    title: str
    colour: str

    def json(self) -> Json:
        """The annotation."""
        return {
            "name": self.name,
            "datasource": DATASOURCE,
            "enable": True,
            "hide": False,
            "expr": self.expr,
            "iconColor": self.colour,
            "step": MARK_STEP,
            "tagKeys": "",
            "textFormat": "",
            "titleFormat": self.title,
            "useValueForTime": False,
        }


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """A whole dashboard."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    """The first has no heading."""
    choices: tuple[Choice, ...]
    marks: tuple[Mark, ...] = ()
    since: str
    refresh: str
    other: tuple[str, str]
    """Title and path of the dashboard that this one links to."""

    def json(self) -> Json:
        """The dashboard's JSON, which can be provisioned as it is."""
        title, path = self.other
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.description,
            "tags": ["seele"],
            "schemaVersion": SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,  # one cursor for all panels
            "fiscalYearStartMonth": 0,
            "liveNow": False,
            "refresh": self.refresh,
            "time": {"from": self.since, "to": "now"},
            "timepicker": {},
            "timezone": "browser",
            "weekStart": "",
            "links": [_link(title, path)],
            "templating": {"list": [_DATASOURCES, *(choice.json() for choice in self.choices), _WINDOWS]},
            "annotations": {"list": [mark.json() for mark in self.marks]},
            "panels": list(_placed(self.rows)),
        }


_DATASOURCES: Json = {
    "type": "datasource",
    "name": "datasource",
    "label": "Data source",
    "query": "prometheus",
    "current": {},
    "hide": 0,
    "includeAll": False,
    "multi": False,
    "options": [],
    "refresh": 1,
    "regex": "",
    "skipUrlSync": False,
}

_AUTOMATIC = {"selected": True, "text": "auto", "value": "$__auto_interval_window"}
_WIDTHS = ("1m", "5m", "15m", "1h", "6h")
_WINDOWS: Json = {
    "type": "interval",
    "name": "window",
    "label": "Averaged over",
    "description": "Window over which counters that move once per training step are averaged; at least a few steps.",
    "auto": True,
    "auto_count": 30,
    "auto_min": "2m",
    "current": _AUTOMATIC,
    "hide": 0,
    "options": [_AUTOMATIC, *({"selected": False, "text": width, "value": width} for width in _WIDTHS)],
    "query": ",".join(_WIDTHS),
    "refresh": 2,
    "skipUrlSync": False,
}


def _link(title: str, path: str) -> Json:
    return {
        "type": "link",
        "title": title,
        "url": path,
        "icon": "dashboard",
        "tooltip": "",
        "tags": [],
        "asDropdown": False,
        "includeVars": False,
        "keepTime": True,
        "targetBlank": False,
    }


def _placed(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """All panels with positions and ids; those of a folded row are inside it."""
    identifier, y = 1, 0
    for number, row in enumerate(rows):
        heading: Json | None = None
        if number > 0:
            place = {"h": 1, "w": COLUMNS, "x": 0, "y": y}
            heading = {"type": "row", "id": identifier, "title": row.title, "collapsed": row.folded, "gridPos": place}
            heading["panels"] = []
            identifier, y = identifier + 1, y + 1
        x = line = 0
        below = y
        inside = []
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, below, line = 0, below + line, 0
            inside.append(panel.json(identifier, x, below))
            identifier, x, line = identifier + 1, x + panel.width, max(line, panel.height)
        if heading is not None and row.folded:
            # When it is opened, Grafana moves everything below.
            yield {**heading, "panels": inside}
            continue
        if heading is not None:
            yield heading
        yield from inside
        y = below + line
