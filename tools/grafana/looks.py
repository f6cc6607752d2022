"""Colours, thresholds, and overrides for single series."""

from dataclasses import dataclass
from typing import Any

GREEN, YELLOW, ORANGE, RED = "#73BF69", "#F2CC0C", "#FF9830", "#F2495C"
BLUE, LIGHT_BLUE, PURPLE, GREY = "#5794F2", "#8AB8FF", "#B877D9", "#8E8E8E"
TURQUOISE, PINK = "#56C3C3", "#FF7BB6"

PHASE_COLOURS = {
    "Pending": GREY,
    "Starting": LIGHT_BLUE,
    "Running": GREEN,
    "Restarting": ORANGE,
    "Suspended": PURPLE,
    "Succeeded": BLUE,
    "Failed": RED,
}
"""Phases of a run, in the order of its life cycle."""


@dataclass(frozen=True)
class Limit:
    """The colour of values from `value` on."""

    value: float
    colour: str


@dataclass(frozen=True)
class Look:
    """The look of the series with this name."""

    name: str
    colour: str | None = None
    dashed: bool = False
    right_axis_unit: str | None = None
    """Unit of a separate axis on the right."""

    def json(self) -> dict[str, Any]:
        """A field override."""
        properties: list[dict[str, Any]] = []
        if self.colour is not None:
            properties.append({"id": "color", "value": {"fixedColor": self.colour, "mode": "fixed"}})
        if self.dashed:
            properties += [
                {"id": "custom.lineStyle", "value": {"dash": [8, 6], "fill": "dash"}},
                {"id": "custom.fillOpacity", "value": 0},
                {"id": "custom.stacking", "value": {"group": "A", "mode": "none"}},
            ]
        if self.right_axis_unit is not None:
            properties += [
                {"id": "custom.axisPlacement", "value": "right"},
                {"id": "unit", "value": self.right_axis_unit},
            ]
        return {"matcher": {"id": "byName", "options": self.name}, "properties": properties}


def looks(colours: dict[str, str]) -> tuple[Look, ...]:
    """A colour for each of these names."""
    return tuple(Look(name, colour) for name, colour in colours.items())


def thresholds(base: str, limits: tuple[Limit, ...]) -> dict[str, Any]:
    """Colours by value; `base` is the colour below all limits."""
    steps: list[dict[str, Any]] = [{"color": base, "value": None}]
    return {"mode": "absolute", "steps": steps + [{"color": one.colour, "value": one.value} for one in limits]}
