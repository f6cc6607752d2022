"""Lines of a container's log as the API server sends them, each behind its time stamp; and how to go on after the last."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

_STAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")

Moment = tuple[datetime, int]
"""Whole seconds, and nanoseconds."""


@dataclass(frozen=True)
class LogLine:
    """One line."""

    stamp: str
    """As the API server wrote it; empty where it wrote none."""
    moment: Moment | None
    text: str


def log_line(raw: bytes) -> LogLine:
    """The line in `raw`. Of a progress bar that rewrites its line, only what is left on a screen in the end."""
    raw = raw.rstrip(b"\r\n")
    found = _STAMP.match(raw)
    if found is None:
        return LogLine("", None, _text(raw))
    seconds, fraction, zone = (part.decode() for part in found.groups(default=b""))
    moment = datetime.fromisoformat(seconds + zone).astimezone(UTC)
    return LogLine(found[0].decode().strip(), (moment, int(fraction.ljust(9, "0"))), _text(raw[found.end() :]))


class Position:
    """How far a log was read, so that a connection made anew shows no line twice and leaves none out.

    The API server goes on from whole seconds only; lines of that second that were shown already are passed over here.
    """

    def __init__(self) -> None:
        self._last: Moment | None = None
        self._shown_at_last = 0
        self._to_skip: int | None = None
        """Lines of the last moment that come once more; None where none can, as nothing was asked for anew."""

    @property
    def since_time(self) -> str | None:
        """From where the log is asked for anew; None where nothing was read."""
        return None if self._last is None else self._last[0].strftime("%Y-%m-%dT%H:%M:%SZ")

    def reconnected(self) -> None:
        """What comes next may have been shown before."""
        self._to_skip = self._shown_at_last if self._last is not None else None

    def is_new(self, line: LogLine) -> bool:
        """Whether a line was not shown before; it counts as shown from now on."""
        if line.moment is None:
            return True
        if self._to_skip is not None and self._last is not None:
            if line.moment < self._last:
                return False
            if line.moment == self._last and self._to_skip > 0:
                self._to_skip -= 1
                return False
            self._to_skip = None
        if line.moment == self._last:
            self._shown_at_last += 1
        else:
            self._last, self._shown_at_last = line.moment, 1
        return True


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace").rpartition("\r")[2]


_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "bright_cyan", "bright_magenta", "bright_green")

_RESET = "\x1b[0m"


class LogPrinter:
    """Logs go to standard output, and what there is to say about them to standard error."""

    def __init__(self, console: Console, notes: Console, *, timestamps: bool):
        self._console = console
        self._notes = notes
        self._timestamps = timestamps
        self._coloured = console.is_terminal and not console.no_color
        self._colours: dict[str, str] = {}
        self._width = 0

    def expect(self, label: str) -> None:
        """A container of this label will have lines: they are aligned with the others."""
        self._width = max(self._width, len(label))

    def line(self, label: str, line: LogLine) -> None:
        """A line of a log, whole and unchanged: nothing is wrapped."""
        stamp = f"{line.stamp} " if self._timestamps and line.stamp else ""
        reset = _RESET if self._coloured and "\x1b" in line.text else ""
        self._console.file.write(f"{self._prefix(label)}{stamp}{line.text}{reset}\n")

    def flush(self) -> None:
        """Everything so far is to be seen now."""
        self._console.file.flush()

    def note(self, text: str, label: str | None = None) -> None:
        """Something about a container, or about the whole run."""
        self.flush()
        prefix = "" if label is None else f"{label:<{self._width}} │ "
        self._notes.print(Text(f"{prefix}{text}", "yellow"), soft_wrap=True)

    def _prefix(self, label: str) -> str:
        plain = f"{label:<{self._width}} │ "
        if not self._coloured:
            return plain
        pod = label.partition("/")[0]
        if pod not in self._colours:
            self._colours[pod] = _COLOURS[len(self._colours) % len(_COLOURS)]
        return Style.parse(self._colours[pod]).render(plain, color_system=ColorSystem.STANDARD)
