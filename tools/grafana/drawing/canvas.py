"""The sheet that panels are drawn on: Grafana's grid in pixels, its dark colours, titles and legends."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image

COLUMN, LINE, GAP = 64, 36, 8
"""Pixels of a column and a line of the grid, and between panels."""
PAPER, PANEL, EDGE, GRID = "#111217", "#181b1f", "#2a2d33", "#2b2e35"
INK, FAINT = "#d3d4de", "#8e8f9b"
SMALL, NORMAL = 8.0, 9.2
DPI = 100
LEGEND_LINES = 5
"""As many as Grafana shows in a panel of the usual height."""
SHADES = 160
"""Colours in the file; more are not seen and cost space."""


@dataclass(frozen=True)
class Entry:
    """A line's entry in a legend; without a colour only words."""

    name: str
    colour: str
    value: str = ""


class Sheet:
    """A figure with the origin at its upper left corner, in pixels."""

    def __init__(self, lines: int, caption: str) -> None:
        self.width = 24 * COLUMN + GAP
        self.height = lines * LINE + GAP + 30
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=PAPER)
        self.canvas = FigureCanvasAgg(self.figure)
        self.words(GAP + 2, self.height - 14, caption, FAINT, SMALL)

    def box(self, place: Mapping[str, int]) -> tuple[float, float, float, float]:
        """Left, top, width and height of a place on the grid."""
        left, top = place["x"] * COLUMN + GAP, place["y"] * LINE + GAP
        return left, top, place["w"] * COLUMN - GAP, place["h"] * LINE - GAP

    def words(self, x: float, y: float, text: str, colour: str = INK, size: float = NORMAL, **style: Any) -> None:
        """Text whose vertical middle is at y."""
        style = {"va": "center", "ha": "left", **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, color=colour, fontsize=size, **style)

    def frame(self, place: Mapping[str, int], title: str) -> tuple[float, float, float, float]:
        """Draw an empty panel; what is left of it below the title."""
        left, top, width, height = self.box(place)
        corner = (left / self.width, 1 - (top + height) / self.height)
        size = (width / self.width, height / self.height)
        self.figure.patches.append(
            FancyBboxPatch(
                corner, *size, boxstyle="square,pad=0", transform=self.figure.transFigure, figure=self.figure,
                facecolor=PANEL, edgecolor=EDGE, linewidth=0.8, zorder=-1,
            )
        )  # fmt: skip
        self.words(left + 10, top + 15, self._cut(title, width - 16))
        return left, top + 28, width, height - 28

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes over these pixels, as quiet as Grafana's."""
        axes = self.figure.add_axes(
            (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        )
        axes.set_facecolor(PANEL)
        axes.tick_params(colors=FAINT, labelsize=SMALL, length=0, pad=3)
        axes.grid(visible=True, color=GRID, linewidth=0.7)
        axes.set_axisbelow(True)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def legend(self, left: float, bottom: float, width: float, entries: Sequence[Entry]) -> float:
        """Draw entries from the bottom line up; how many pixels that takes."""
        lines: list[list[tuple[float, Entry]]] = [[]]
        x = 0.0
        for entry in entries:
            needed = 24 + self.length(_text(entry), SMALL) + 12
            if x and x + needed > width:
                lines.append([])
                x = 0.0
            lines[-1].append((x, entry))
            x += needed
        self._leave_out(lines, width)
        for number, line in enumerate(lines):
            y = bottom - 10 - 15 * (len(lines) - 1 - number)
            for offset, entry in line:
                if entry.colour:
                    self.words(left + offset, y, "▬", entry.colour, SMALL)
                self.words(left + offset + (17 if entry.colour else 0), y, _text(entry), INK, SMALL)
        return 15.0 * len(lines) + 6

    def _leave_out(self, lines: list[list[tuple[float, Entry]]], width: float) -> None:
        """Leave lines out that have no room, and say so: Grafana's own legend can be scrolled."""
        missing = sum(len(line) for line in lines[LEGEND_LINES:])
        if not missing:
            return
        del lines[LEGEND_LINES:]
        last = lines[-1]
        while True:
            sign = Entry(f"+ {missing} more", "")
            x = last[-1][0] + 24 + self.length(_text(last[-1][1]), SMALL) + 12 if last else 0.0
            if not last or x + self.length(sign.name, SMALL) <= width:
                last.append((x, sign))
                return
            last.pop()
            missing += 1

    def length(self, text: str, size: float) -> float:
        """Pixels that a text is wide."""
        renderer = self.canvas.get_renderer()
        drawn = self.figure.text(0, 0, text, fontsize=size)
        width = drawn.get_window_extent(renderer).width
        drawn.remove()
        return float(width)

    def save(self, path: Path) -> None:
        """Write the picture, with few colours, as it is committed."""
        pixels = io.BytesIO()
        self.figure.savefig(pixels, format="png", facecolor=PAPER)
        pixels.seek(0)
        picture = Image.open(pixels).convert("RGB").quantize(SHADES, dither=Image.Dither.NONE)
        picture.save(path, optimize=True)

    def _cut(self, text: str, width: float) -> str:
        while text and self.length(text, NORMAL) > width:
            text = text[:-2].rstrip(" …") + "…"
        return text


def _text(entry: Entry) -> str:
    return f"{entry.name}   {entry.value}" if entry.value else entry.name
