"""The operator's log: one line per entry, as text or JSON."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

LogFormat = Literal["text", "json"]

_QUIET = {
    "kopf": logging.WARNING,
    "asyncio": logging.WARNING,
    "aiohttp": logging.WARNING,
    # Its warnings repeat errors that we report.
    "kubernetes": logging.ERROR,
}


def set_up_logging(form: LogFormat) -> None:
    """Log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text("%(asctime)s %(levelname)s %(message)s"))
    handler.addFilter(_relevant)
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def _relevant(record: logging.LogRecord) -> bool:
    # The operator itself logs an outage of the API server once; kopf logs it for each request of each watch.
    return not (record.name.startswith("kopf") and record.getMessage().startswith("Request attempt"))


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class _Text(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return _moment(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["trace"] = self.formatException(record.exc_info)
        return json.dumps(entry)
