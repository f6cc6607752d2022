"""How log lines of many containers stand on one console: each behind the name of its pod."""

from __future__ import annotations

from rich.color import ColorSystem
from rich.console import Console
from rich.style import Style
from rich.text import Text

from seele_operator.remote.log_lines import LogLine

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
