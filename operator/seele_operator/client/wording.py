"""How figures, durations and tables are written by the commands for clusters."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

ABSENT = "–"
_GAP = "   "


def age(since: datetime | None, now: datetime) -> str:
    """Time since a moment as kubectl writes it: `45s`, `12m`, `3h20m`, `5d`."""
    return ABSENT if since is None else span((now - since).total_seconds())


def span(seconds: float) -> str:
    """Seconds in one or two units: `45s`, `12m`, `3h20m`, `5d`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 180:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h{minutes % 60}m" if hours < 10 and minutes % 60 else f"{hours}h"
    return f"{days}d"


def figure(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return ABSENT if value is None else format(value, form)


def table(header: Sequence[str], rows: Sequence[Sequence[Text | str]], indent: str = "") -> list[Text]:
    """Columns of text, each as wide as its widest entry; lines are never wrapped or cut."""
    cells = [[Text(name, "bold") for name in header], *([_text(cell) for cell in row] for row in rows)]
    widths = [max(row[column].cell_len for row in cells) for column in range(len(header))]
    lines = []
    for row in cells:
        line = Text(indent)
        for cell, width in zip(row, widths, strict=True):
            line.append_text(cell).append(" " * (width - cell.cell_len) + _GAP)
        line.rstrip()
        lines.append(line)
    return lines


def bar(done: int, whole: int, width: int = 30) -> Text:
    """A progress bar."""
    filled = 0 if whole <= 0 else round(width * min(1.0, done / whole))
    return Text.assemble(("█" * filled, "green"), ("░" * (width - filled), "dim"))


def _text(cell: Text | str) -> Text:
    return cell if isinstance(cell, Text) else Text(cell)
