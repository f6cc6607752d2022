"""The list of rollout servers, which may change during a run: a file with one URL per line, written by the operator."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)


class UrlFile:
    """The file at `path`, which every `poll` reads again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[str, ...] | str | None = None
        self._settled: tuple[str, ...] | str | None = None

    def poll(self) -> tuple[str, ...] | None:
        """The URLs in the file if they changed, otherwise None.

        A change counts once two consecutive polls have read the same, so that a file that is being written is ignored.
        A file that is missing, empty or not a list of URLs changes nothing, and is logged once.
        """
        found = self._read()
        settled = found == self._last and found != self._settled
        self._last = found
        if not settled:
            return None
        self._settled = found
        if isinstance(found, str):
            logger.warning("the list of rollout servers is unchanged: %s %s", self._path, found)
            return None
        return found

    def _read(self) -> tuple[str, ...] | str:
        """The URLs, or what is wrong with the file."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            return "is not text"
        urls = tuple(dict.fromkeys(line.strip().rstrip("/") for line in text.splitlines() if line.strip()))
        wrong = next((url for url in urls if not _is_url(url)), None)
        if wrong is not None:
            return f"has a line that is not a URL: {wrong[:200]!r}"
        return urls or "is empty"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
