"""The logs of a run's pods, one file for each pod: followed for the console, and quoted after a failure."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from seele_operator.local.display import Display
from seele_operator.local.translate import LocalPod
from seele_operator.observe.last_words import log_lines

LOG_PERIOD = 0.25
MAX_READ_BYTES = 1 << 20
"""Bytes read from a file at once."""
TAIL_BYTES = 256 << 10
"""Bytes of a log that are searched for the reason of a failure."""


@dataclass
class Follower:
    """Reads the lines that are appended to a file."""

    path: Path
    position: int = 0
    rest: bytes = b""

    def lines(self) -> list[str]:
        """Complete lines written since the last call."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            return []
        if size <= self.position:
            return []
        with self.path.open("rb") as file:
            file.seek(self.position)
            data = file.read(MAX_READ_BYTES)
        self.position += len(data)
        *whole, self.rest = (self.rest + data).split(b"\n")
        return [_text(line) for line in whole]


async def follow_logs(pods: Sequence[tuple[LocalPod, Path]], display: Display) -> None:
    """Show new lines of the pods' logs, from now on and until cancelled, including the last ones."""
    followers = [(pod, Follower(path, position=path.stat().st_size if path.exists() else 0)) for pod, path in pods]

    def show_new_lines() -> None:
        for pod, follower in followers:
            for line in follower.lines():
                display.line(pod, line)

    try:
        while True:
            show_new_lines()
            await asyncio.sleep(LOG_PERIOD)
    finally:
        show_new_lines()


def last_lines(path: Path, since: int) -> list[str]:
    """The last lines that were written to a log after its first `since` bytes, except empty ones; at most TAIL_BYTES."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(since, size - TAIL_BYTES))
            data = file.read()
    except FileNotFoundError:
        return []
    return [line for line in log_lines(data.decode("utf-8", "replace")) if line.strip()]


def _text(line: bytes) -> str:
    # A progress bar rewrites its line: the text after the last carriage return remains.
    return line.decode("utf-8", "replace").rstrip("\r").rpartition("\r")[2]
