"""The queries of the committed dashboards, evaluated by a real Prometheus."""

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support import REPOSITORY
from tests.support.prometheus_server import Series, evaluate, evaluate_over
from tools.metrics_page import VLLM_ROWS, operator_rows, trainer_rows

OPERATOR = ("seele_operator_", "seele_run_", "process_")
"""How the names of an operator's series begin."""

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")
"""Not $1, which is a group of label_replace."""
_METRIC = re.compile(r"\b((?:seele|DCGM|process)_\w+|vllm:\w+|up)\b(?=\s*[{\[]|\s*$|\s*[)+\-*/,])")


@dataclass(frozen=True)
class PanelQuery:
    """A query of a dashboard, with the title of its panel or annotation."""

    where: str
    expr: str
    legend: str
    instant: bool = False

    @property
    def metrics(self) -> set[str]:
        """Names of the series that it reads."""
        return set(_METRIC.findall(self.expr))


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels except rows, including those in folded rows."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


def queries(panel: Mapping[str, Any]) -> list[PanelQuery]:
    """The queries of a panel, in order."""
    return [
        PanelQuery(panel["title"], target["expr"], target["legendFormat"], target["instant"])
        for target in panel["targets"]
    ]


def with_variables(expr: str, values: Mapping[str, str]) -> str:
    """The expression with its variables replaced. Raises KeyError for an unknown variable."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def dashboard(name: str) -> dict[str, Any]:
    """A committed dashboard."""
    body: dict[str, Any] = json.loads((REPOSITORY / "manifests" / "grafana" / f"{name}.json").read_text())
    return body


def queries_of(name: str) -> list[PanelQuery]:
    """Every query of a dashboard, including those of folded rows and annotations."""
    body = dashboard(name)
    marks = [PanelQuery(one["name"], one["expr"], one["titleFormat"]) for one in body["annotations"]["list"]]
    return [one for panel in panels(body) for one in queries(panel)] + marks


def series_names() -> set[str]:
    """Names of all series in docs/metrics.md."""
    rows = [*trainer_rows(), *VLLM_ROWS, *operator_rows()]
    parts = ("_bucket", "_count", "_sum")
    return {row.name + part for row in rows for part in (parts if row.kind == "histogram" else ("",))}


def source_of(query: PanelQuery) -> str:
    """What a query needs in order to return data: operator, gpu, or trainer."""
    if any(name.startswith("DCGM_") for name in query.metrics):
        return "gpu"
    # A query with `or on()` has an alternative without an operator.
    if any(name.startswith(OPERATOR) for name in query.metrics) and "or on()" not in query.expr:
        return "operator"
    return "trainer"


def title(query: PanelQuery) -> str:
    """The name of a test about a query."""
    return f"{query.where}: {query.legend or query.expr[:40]}"


@dataclass(frozen=True)
class Seen:
    """A period that a Prometheus has recorded, and the values of the dashboard's variables."""

    url: str
    since: float
    until: float
    variables: Mapping[str, str] = field(default_factory=dict)

    def series(self, query: PanelQuery) -> list[Series]:
        """The series of a query that have at least one number. Raises QueryRefused for an invalid query."""
        values = {
            "window": "1m",
            "__rate_interval": "30s",
            "__range": f"{math.ceil(self.until - self.since)}s",
            **self.variables,
        }
        expr = with_variables(query.expr, values)
        if query.instant:
            found = evaluate(self.url, expr, self.until)
        else:
            found = evaluate_over(self.url, expr, self.since, self.until, 1.0)
        return [one for one in found if any(math.isfinite(value) for value in one.values)]

    def choices(self, variable: Mapping[str, Any]) -> list[str]:
        """The values of a dashboard's variable."""
        parsed = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert parsed is not None, variable
        selector, label = with_variables(parsed[1], self.variables), parsed[2]
        counted = f"count by ({label}) (last_over_time({selector}[{math.ceil(self.until - self.since)}s]))"
        return sorted(one.labels[label] for one in evaluate(self.url, counted, self.until))


def legends(found: Iterable[Series], label: str) -> set[str]:
    """The values of a label among series."""
    return {one.labels[label] for one in found}
