"""The queries of the committed dashboards, put to a real Prometheus."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support import REPOSITORY
from tools.grafana.prometheus import Prometheus, Series
from tools.grafana.reading import Asked, marks, panels, put_in, queries
from tools.metrics_page import operator_rows, trainer_rows, vllm_rows

OPERATOR = ("seele_operator_", "seele_run_", "process_")
"""How the names of an operator's series begin."""


def dashboard(name: str) -> dict[str, Any]:
    """A dashboard as it is committed."""
    body: dict[str, Any] = json.loads((REPOSITORY / "manifests" / "grafana" / f"{name}.json").read_text())
    return body


def asked_by(name: str) -> list[Asked]:
    """Every query of a dashboard, those of folded rows and annotations too."""
    body = dashboard(name)
    return [one for panel in panels(body) for one in queries(panel)] + marks(body)


def series_names() -> set[str]:
    """Names of all series that docs/metrics.md tells of."""
    rows = [*trainer_rows(), *vllm_rows(), *operator_rows()]
    parts = ("_bucket", "_count", "_sum")
    return {row.name + part for row in rows for part in (parts if row.kind == "histogram" else ("",))}


def source_of(asked: Asked) -> str:
    """Who has to be there for a query to return anything: operator, gpu, or trainer."""
    if any(name.startswith("DCGM_") for name in asked.metrics):
        return "gpu"
    # A query that says what to do without an operator can do without.
    if any(name.startswith(OPERATOR) for name in asked.metrics) and "or on()" not in asked.expr:
        return "operator"
    return "trainer"


def title(asked: Asked) -> str:
    """What a test about a query is called."""
    return f"{asked.where}: {asked.legend or asked.expr[:40]}"


@dataclass(frozen=True)
class Seen:
    """A stretch of time that a Prometheus has watched, and what the dashboard's variables are there."""

    url: str
    since: float
    until: float
    variables: Mapping[str, str] = field(default_factory=dict)

    def series(self, asked: Asked) -> list[Series]:
        """What a query returns in it, with at least one number. Raises QueryRefused for one that is not valid."""
        values = {
            "window": "1m",
            "__rate_interval": "30s",
            "__range": f"{math.ceil(self.until - self.since)}s",
            **self.variables,
        }
        expr, server = put_in(asked.expr, values), Prometheus(self.url)
        found = server.at(expr, self.until) if asked.instant else server.between(expr, self.since, self.until, 1.0)
        return [one for one in found if any(math.isfinite(value) for value in one.values)]

    def choices(self, variable: Mapping[str, Any]) -> list[str]:
        """What can be chosen for a variable of a dashboard."""
        parsed = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert parsed is not None, variable
        selector, label = put_in(parsed[1], self.variables), parsed[2]
        counted = f"count by ({label}) (last_over_time({selector}[{math.ceil(self.until - self.since)}s]))"
        return sorted(one.labels[label] for one in Prometheus(self.url).at(counted, self.until))


def legends(found: Iterable[Series], label: str) -> set[str]:
    """The values of a label among series."""
    return {one.labels[label] for one in found}
