"""What a panel says about its looks: colours by series, by value and by name, as Grafana decides them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

PALETTE = (
    "#73BF69", "#F2CC0C", "#8AB8FF", "#FF780A", "#F2495C", "#5794F2", "#B877D9", "#37872D", "#FADE2A", "#C4162A",
    "#1F60C4", "#8F3BB8", "#96D98D", "#FFEE52", "#C0D8FF", "#FFB357",
)  # fmt: skip


def defaults(panel: Json) -> Json:
    """How values are shown where nothing else is said."""
    found: Json = panel["fieldConfig"]["defaults"]
    return found


def look(panel: Json, name: str) -> dict[str, Any]:
    """What overrides say about a series, by property."""
    said: dict[str, Any] = {}
    for override in panel["fieldConfig"]["overrides"]:
        if override["matcher"]["options"] == name:
            said |= {one["id"]: one["value"] for one in override["properties"]}
    return said


def colour_of(panel: Json, name: str, number: int) -> str:
    """The colour of the series that is the `number`-th of its panel."""
    said = look(panel, name).get("color")
    return str(said["fixedColor"]) if said else PALETTE[number % len(PALETTE)]


def colour_at(thresholds: Json, value: float) -> str:
    """The colour of a value."""
    reached = [step["color"] for step in thresholds["steps"] if step["value"] is None or value >= step["value"]]
    return str(reached[-1])
