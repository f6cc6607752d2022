"""Reading a dashboard's file as Grafana does: its panels, their queries, and variables put in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)(?::\w+)?\}|([A-Za-z_]\w*))")
"""$1 is none: that is how label_replace names a group."""
_METRIC = re.compile(r"\b((?:seele|DCGM|process)_\w+|vllm:\w+|up)\b(?=\s*[{\[]|\s*$|\s*[)+\-*/,])")


@dataclass(frozen=True)
class Asked:
    """One query of a dashboard, with the panel or annotation that asks it."""

    where: str
    expr: str
    legend: str
    instant: bool = False

    @property
    def metrics(self) -> set[str]:
        """Names of the series that it reads."""
        return set(_METRIC.findall(self.expr))


def panels(dashboard: Json) -> Iterator[Json]:
    """All panels that show something, also those in folded rows."""
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", [])


def queries(panel: Json) -> list[Asked]:
    """The queries of a panel, in its order."""
    return [
        Asked(panel["title"], target["expr"], target["legendFormat"], target["instant"]) for target in panel["targets"]
    ]


def marks(dashboard: Json) -> list[Asked]:
    """The queries of the annotations."""
    return [Asked(mark["name"], mark["expr"], mark["titleFormat"]) for mark in dashboard["annotations"]["list"]]


def put_in(expr: str, values: Mapping[str, str]) -> str:
    """The expression with its variables replaced. Raises KeyError for one that has no value."""
    return _VARIABLE.sub(lambda found: values[found[1] or found[2]], expr)


def named(legend: str, labels: Mapping[str, str]) -> str:
    """What a series is called: the legend with its labels put in; all labels where there is no legend."""
    if not legend:
        return ", ".join(f"{name}={value}" for name, value in labels.items() if name != "__name__")
    return re.sub(r"\{\{\s*(\w+)\s*\}\}", lambda found: labels.get(found[1], ""), legend)
