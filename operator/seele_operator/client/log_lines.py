"""Lines of containers' logs: their timestamps, where to continue after a lost connection, and how they are printed."""

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
    """As the API server wrote it; empty if it wrote none."""
    moment: Moment | None
    text: str


def log_line(raw: bytes) -> LogLine:
    """The line in `raw`. Of a progress bar, which rewrites its line, only the last state."""
    raw = raw.rstrip(b"\r\n")
    found = _STAMP.match(raw)
    if found is None:
        return LogLine("", None, _text(raw))
    seconds, fraction, zone = (part.decode() for part in found.groups(default=b""))
    moment = datetime.fromisoformat(seconds + zone).astimezone(UTC)
    return LogLine(found[0].decode().strip(), (moment, int(fraction.ljust(9, "0"))), _text(raw[found.end() :]))


class Position:
    """How far a log was read, so that after a lost connection no line is shown twice or left out.

    The API server can only continue from a whole second; lines of that second that were already shown are skipped here.
    """

    def __init__(self) -> None:
        self._last: Moment | None = None
        self._shown_at_last = 0
        self._to_skip: int | None = None
        """Lines of the last moment that will be sent again; None unless the connection is a new one."""

    @property
    def since_time(self) -> str | None:
        """The time to request the log from after a lost connection; None if nothing was read."""
        return None if self._last is None else self._last[0].strftime("%Y-%m-%dT%H:%M:%SZ")

    def reconnected(self) -> None:
        """Note that the next lines may have been shown before."""
        self._to_skip = self._shown_at_last if self._last is not None else None

    def is_new(self, line: LogLine) -> bool:
        """Whether a line was not shown before; it counts as shown from then on."""
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
    """Prints logs to standard output, and notes about them to standard error."""

    def __init__(self, console: Console, notes: Console, *, timestamps: bool):
        self._console = console
        self._notes = notes
        self._timestamps = timestamps
        self._coloured = console.is_terminal and not console.no_color
        self._colours: dict[str, str] = {}
        self._width = 0

    def expect(self, label: str) -> None:
        """Reserve room for this label, so that all lines are aligned."""
        self._width = max(self._width, len(label))

    def line(self, label: str, line: LogLine) -> None:
        """Print a line of a log, unchanged and without wrapping."""
        stamp = f"{line.stamp} " if self._timestamps and line.stamp else ""
        reset = _RESET if self._coloured and "\x1b" in line.text else ""
        self._console.file.write(f"{self._prefix(label)}{stamp}{line.text}{reset}\n")

    def flush(self) -> None:
        """Show everything printed so far."""
        self._console.file.flush()

    def note(self, text: str, label: str | None = None) -> None:
        """Print a note about a container, or about the whole run."""
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
