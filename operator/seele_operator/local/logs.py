"""Logs of a run's pods: one file a pod, followed for the console."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

SERIOUS = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b")
LONGEST_READ = 1 << 20
"""Bytes taken from a file at once; a pod that writes faster than this is cut, in the console only."""
TAIL_BYTES = 64 << 10


@dataclass
class Follower:
    """Reads the lines that are appended to a file."""

    path: Path
    position: int = 0
    rest: bytes = b""

    def lines(self) -> list[str]:
        """Complete lines that were written since the last call."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        if size <= self.position:
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            data = file.read(LONGEST_READ)
        self.position += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [_text(line) for line in whole]


def serious(line: str) -> bool:
    """Whether a log line is of level WARNING or above."""
    return SERIOUS.search(line) is not None


def tail(path: Path, count: int) -> list[str]:
    """The last `count` lines of a file that are not empty; none where there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    lines = [_text(line) for line in data.split(b"\n")]
    return [line for line in lines if line.strip()][-count:]


def _text(line: bytes) -> str:
    # A progress bar rewrites its line: what is left on a screen is what follows the last return.
    return line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
