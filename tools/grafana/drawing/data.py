"""What a panel's queries return, ready to be drawn."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grafana.prometheus import Prometheus, Series
from grafana.reading import named, put_in

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """A series with its name, on the common steps of the time range; NaN where there is no value."""

    name: str
    labels: Mapping[str, str]
    values: Array

    @property
    def last(self) -> float:
        """The last value; NaN without any."""
        known = self.values[np.isfinite(self.values)]
        return float(known[-1]) if len(known) else float("nan")


@dataclass(frozen=True)
class Source:
    """A server, a time range and the values of the dashboard's variables."""

    server: Prometheus
    since: float
    until: float
    step: float
    variables: Mapping[str, str]

    @property
    def times(self) -> Array:
        """The steps of the range."""
        count = int(np.floor((self.until - self.since) / self.step + 1e-9)) + 1
        return np.asarray(self.since + self.step * np.arange(count), dtype=np.float64)

    def lines(self, target: Mapping[str, Any]) -> list[Line]:
        """A query's series over the range, or at its end only."""
        instant = bool(target.get("instant", False))
        place = self._at_the_end if instant else self._aligned
        found = self._ask(target["expr"], instant=instant)
        lines = [Line(named(target["legendFormat"], one.labels), one.labels, place(one)) for one in found]
        return sorted(
            lines, key=lambda line: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", line.name)]
        )

    def moments(self, expr: str) -> list[float]:
        """When an expression begins to have a value, each time again."""
        began = []
        for one in self._ask(expr):
            known = np.isfinite(self._aligned(one))
            starts = known & ~np.concatenate(([False], known[:-1]))
            began += [float(time) for time in self.times[starts]]
        return began

    def rows(self, target: Mapping[str, Any]) -> list[Series]:
        """A query's answer at the end of the range."""
        return self._ask(target["expr"], instant=True)

    def _at_the_end(self, one: Series) -> Array:
        """The answer about the end of the range, which need not be one of its steps."""
        values = np.full(len(self.times), np.nan)
        values[-1] = one.values[0]
        return values

    def _ask(self, expr: str, *, instant: bool = False) -> list[Series]:
        text = put_in(expr, self.variables)
        if instant:
            return self.server.at(text, self.until)
        return self.server.between(text, self.since, self.until, self.step)

    def _aligned(self, one: Series) -> Array:
        times = self.times
        values = np.full(len(times), np.nan)
        places = np.rint((np.asarray(one.times) - self.since) / self.step).astype(int)
        inside = (places >= 0) & (places < len(times))
        values[places[inside]] = np.asarray(one.values)[inside]
        return values
