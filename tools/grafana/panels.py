"""The kinds of panels in the dashboards, with the minimal JSON for Grafana 9 and later."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from tools.grafana.looks import GREEN, Limit, Look, thresholds
from tools.grafana.queries import DATASOURCE, Format, Query

Json = dict[str, Any]

CONNECTED_SECONDS = 120
"""Longer gaps stay visible, such as those of a restart; a missed scrape does not."""


@dataclass(frozen=True)
class Panel:
    """What all panels have in common. A panel is built up: its head, what a healthy run looks like, its queries."""

    title: str
    unit: str
    _: dataclasses.KW_ONLY
    description: str = ""
    queries: tuple[Query, ...] = ()
    width: int = 8
    """Of the 24 columns of a dashboard."""
    height: int = 8
    lowest: float | None = 0.0
    """Lower end of the axis; None leaves it to the data."""
    highest: float | None = None
    decimals: int | None = None
    base: str = GREEN
    """Colour of values below all limits."""
    limits: tuple[Limit, ...] = ()
    looks: tuple[Look, ...] = ()

    kind: ClassVar[str] = ""
    shape: ClassVar[Format] = "time_series"

    def healthy(self, description: str) -> Self:
        """With this description, which says what a healthy run looks like."""
        return dataclasses.replace(self, description=description)

    def query(self, legend: str, expr: str, colour: str | None = None, *, instant: bool = False) -> Self:
        """With one more query; a colour is for a legend without labels."""
        panel = dataclasses.replace(self, queries=(*self.queries, Query(expr, legend, instant)))
        return panel if colour is None else panel.styled(Look(legend, colour))

    def styled(self, *looks: Look) -> Self:
        """With the looks of single series."""
        return dataclasses.replace(self, looks=(*self.looks, *looks))

    def limit(self, value: float, colour: str) -> Self:
        """With this colour from a value on."""
        return dataclasses.replace(self, limits=(*self.limits, Limit(value, colour)))

    def json(self, identifier: int, x: int, y: int) -> Json:
        """The panel at its place on the dashboard's grid."""
        return {
            "type": self.kind,
            "id": identifier,
            "title": self.title,
            "description": self.description,
            "gridPos": {"h": self.height, "w": self.width, "x": x, "y": y},
            "datasource": DATASOURCE,
            "fieldConfig": {"defaults": self.defaults(), "overrides": [look.json() for look in self.looks]},
            "options": self.options(),
            "targets": [query.json(number, self.shape) for number, query in enumerate(self.queries)],
        }

    def defaults(self) -> Json:
        """The field configuration, unless a look overrides it."""
        bounds = {"min": self.lowest, "max": self.highest, "decimals": self.decimals}
        return {
            "unit": self.unit,
            "color": {"mode": "palette-classic"},
            "mappings": [],
            "thresholds": thresholds(self.base, self.limits),
            **{name: value for name, value in bounds.items() if value is not None},
        }

    def options(self) -> Json:
        """The options of this kind of panel."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Graph(Panel):
    """Lines over time, with the last values in the legend and limits as dashed lines."""

    stacked: bool = False
    steps: bool = False
    """Whether values hold until the next one, as for phases and counts."""
    fill: int = 8

    kind: ClassVar[str] = "timeseries"

    def defaults(self) -> Json:
        """How lines are drawn."""
        custom = {
            "drawStyle": "line",
            "lineInterpolation": "stepAfter" if self.steps else "linear",
            "lineWidth": 1 if self.stacked else 2,
            "fillOpacity": 65 if self.stacked else self.fill,
            "showPoints": "never",
            "spanNulls": CONNECTED_SECONDS * 1000,
            "stacking": {"group": "A", "mode": "normal" if self.stacked else "none"},
            "scaleDistribution": {"type": "linear"},
            "thresholdsStyle": {"mode": "dashed" if self.limits else "off"},
            "axisPlacement": "auto",
        }
        return {**super().defaults(), "custom": custom}

    def options(self) -> Json:
        """Legend and tooltip."""
        return {
            "legend": {"calcs": ["lastNotNull"], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "none"},
        }


@dataclass(frozen=True, kw_only=True)
class Number(Panel):
    """The last value in large type with a faint line behind it; or, with `show="name"`, the name of the series."""

    show: Literal["value", "name", "value_and_name"] = "value"
    line: bool = True
    absent: str = "–"
    """Text if there is no value."""
    width: int = 3
    height: int = 4

    kind: ClassVar[str] = "stat"

    def defaults(self) -> Json:
        """Colours by limits, unless a look overrides them."""
        return {**super().defaults(), "color": {"mode": "thresholds"}, "noValue": self.absent}

    def options(self) -> Json:
        """The layout of the number."""
        return {
            "colorMode": "value",
            "graphMode": "area" if self.line else "none",
            "justifyMode": "center",
            "orientation": "auto",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            "textMode": self.show,
        }


@dataclass(frozen=True, kw_only=True)
class HeatMap(Panel):
    """The distribution of a histogram over time."""

    kind: ClassVar[str] = "heatmap"
    shape: ClassVar[Format] = "heatmap"

    def defaults(self) -> Json:
        """A linear scale."""
        return {**super().defaults(), "custom": {"scaleDistribution": {"type": "linear"}}}

    def options(self) -> Json:
        """Axis, colours and tooltip; the data are already in buckets."""
        return {
            "calculate": False,
            "cellGap": 0,
            "color": {
                "exponent": 0.5,
                "fill": "dark-orange",
                "mode": "scheme",
                "reverse": False,
                "scale": "exponential",
                "scheme": "Magma",
                "steps": 64,
            },
            "filterValues": {"le": 1e-9},
            "legend": {"show": True},
            "rowsFrame": {"layout": "le"},
            "showValue": "never",
            "tooltip": {"show": True, "yHistogram": False},
            "yAxis": {"axisPlacement": "left", "reverse": False, "unit": self.unit},
        }


@dataclass(frozen=True, kw_only=True)
class Timeline(Panel):
    """A bar for each series, coloured by the meaning of its values."""

    meanings: dict[int, tuple[str, str]] = dataclasses.field(default_factory=dict)
    """Number → name and colour."""

    kind: ClassVar[str] = "state-timeline"

    def defaults(self) -> Json:
        """Names and colours of the values."""
        mapped = {
            str(number): {"color": colour, "index": index, "text": name}
            for index, (number, (name, colour)) in enumerate(self.meanings.items())
        }
        return {
            **super().defaults(),
            "color": {"mode": "thresholds"},
            "custom": {"fillOpacity": 80, "lineWidth": 0, "spanNulls": CONNECTED_SECONDS * 1000},
            "mappings": [{"type": "value", "options": mapped}],
        }

    def options(self) -> Json:
        """Adjacent bars of the same state are merged."""
        return {
            "alignValue": "center",
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "mergeValues": True,
            "rowHeight": 0.85,
            "showValue": "auto",
            "tooltip": {"mode": "single", "sort": "none"},
        }


@dataclass(frozen=True)
class Column:
    """A column of a table: its field, title and format."""

    field: str
    """The name of a label, or `Value #B` for the values of query B."""
    title: str
    _: dataclasses.KW_ONLY
    unit: str = "none"
    decimals: int | None = None
    colours: dict[str, str] = dataclasses.field(default_factory=dict)
    """Colours of cells by their text."""
    limits: tuple[Limit, ...] = ()
    gauge: bool = False
    """Whether the value is shown as a bar from 0 to 1."""
    link: str = ""
    width: int | None = None

    def json(self) -> Json:
        """A field override; by then the field is renamed to its title."""
        properties: list[Json] = [{"id": "unit", "value": self.unit}]
        if self.decimals is not None:
            properties.append({"id": "decimals", "value": self.decimals})
        if self.width is not None:
            properties.append({"id": "custom.width", "value": self.width})
        if self.colours:
            mapped = {
                name: {"color": colour, "index": index} for index, (name, colour) in enumerate(self.colours.items())
            }
            properties.append({"id": "mappings", "value": [{"type": "value", "options": mapped}]})
            properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
        if self.limits:
            properties.append({"id": "thresholds", "value": thresholds("text", self.limits)})
            properties.append({"id": "custom.cellOptions", "value": {"type": "color-text"}})
        if self.gauge:
            properties += [
                {"id": "custom.cellOptions", "value": {"mode": "basic", "type": "gauge"}},
                {"id": "min", "value": 0},
                {"id": "max", "value": 1},
            ]
        if self.link:
            properties.append({"id": "links", "value": [{"title": "Open this run", "url": self.link}]})
        return {"matcher": {"id": "byName", "options": self.title}, "properties": properties}


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """A row for each set of labels, with the values of all queries side by side."""

    columns: tuple[Column, ...]
    sort: str = ""
    """Title of the column to sort by, ascending."""

    kind: ClassVar[str] = "table"
    shape: ClassVar[Format] = "table"

    def json(self, identifier: int, x: int, y: int) -> Json:
        """The panel with its columns."""
        body = super().json(identifier, x, y)
        body["fieldConfig"]["overrides"] = [column.json() for column in self.columns]
        known = {column.field for column in self.columns}
        values = {f"Value #{chr(ord('A') + number)}" for number in range(len(self.queries))}
        body["transformations"] = [
            {"id": "merge", "options": {}},
            {
                "id": "organize",
                "options": {
                    "excludeByName": dict.fromkeys(sorted({"Time"} | values - known), True),
                    "indexByName": {column.field: index for index, column in enumerate(self.columns)},
                    "renameByName": {column.field: column.title for column in self.columns},
                },
            },
        ]
        return body

    def defaults(self) -> Json:
        """Plain cells."""
        custom = {"align": "auto", "cellOptions": {"type": "auto"}, "inspect": False}
        return {**super().defaults(), "color": {"mode": "thresholds"}, "custom": custom}

    def options(self) -> Json:
        """Header and order."""
        return {
            "cellHeight": "sm",
            "footer": {"show": False},
            "showHeader": True,
            "sortBy": [{"desc": False, "displayName": self.sort}] if self.sort else [],
        }
