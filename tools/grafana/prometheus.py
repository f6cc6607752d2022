"""A Prometheus server's answers to queries."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER_SECONDS = 30.0


class QueryRefused(RuntimeError):
    """The server does not answer a query; the message has its words."""


@dataclass(frozen=True)
class Series:
    """One line of an answer."""

    labels: Mapping[str, str]
    times: tuple[float, ...]
    values: tuple[float, ...]


@dataclass(frozen=True)
class Prometheus:
    """A server at `url`."""

    url: str

    def at(self, expr: str, moment: float) -> list[Series]:
        """The value of an expression at a moment, in seconds since the epoch. Raises QueryRefused."""
        result = self._ask("query", query=expr, time=f"{moment:.3f}")
        if result["resultType"] == "scalar":
            return [_series({}, [result["result"]])]
        return [_series(one["metric"], [one["value"]]) for one in result["result"]]

    def between(self, expr: str, since: float, until: float, step: float) -> list[Series]:
        """The values of an expression over a time range. Raises QueryRefused."""
        result = self._ask("query_range", query=expr, start=f"{since:.3f}", end=f"{until:.3f}", step=f"{step:g}")
        return [_series(one["metric"], one["values"]) for one in result["result"]]

    def _ask(self, route: str, **parameters: str) -> dict[str, Any]:
        body = urllib.parse.urlencode(parameters).encode()
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{route}", body, ANSWER_SECONDS) as answer:
                data: dict[str, Any] = json.load(answer)["data"]
                return data
        except urllib.error.HTTPError as error:
            raise QueryRefused(f"{parameters['query']}: {error.read().decode(errors='replace')[:300]}") from error
        except OSError as error:
            raise QueryRefused(f"{self.url} does not answer: {error}") from error


def _series(labels: Mapping[str, str], points: list[list[Any]]) -> Series:
    return Series(labels, tuple(float(time) for time, _ in points), tuple(float(value) for _, value in points))
