"""Queries of panels: an expression with its legend, and selectors for the series of a run."""

from dataclasses import dataclass
from typing import Any, Literal

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Format = Literal["time_series", "heatmap", "table"]


@dataclass(frozen=True)
class Query:
    """An expression and the legend of its series; `instant` evaluates it only at the end of the time range."""

    expr: str
    legend: str
    instant: bool = False

    def json(self, number: int, shape: Format) -> dict[str, Any]:
        """A target of a panel; the first is A."""
        return {
            "datasource": DATASOURCE,
            "editorMode": "code",
            "expr": self.expr,
            "format": shape,
            "instant": self.instant,
            "legendFormat": self.legend,
            "range": not self.instant,
            "refId": chr(ord("A") + number),
        }


def of_run(metric: str, **labels: str) -> str:
    """Series of the selected run that trainers export for themselves or their rollout servers."""
    return f"{metric}{{{_matchers(namespace='$namespace', run='$run', **labels)}}}"


def reported_of_run(metric: str, **labels: str) -> str:
    """Series of the selected run that the operator exports; their label `namespace` is the operator's own."""
    return f"{metric}{{{_matchers(run_namespace='$namespace', run='$run', **labels)}}}"


def one(metric: str, **labels: str) -> str:
    """A series of the selected run, as one line for all attempts and pods."""
    return f"max({of_run(metric, **labels)})"


def by(label: str, metric: str) -> str:
    """Series of the selected run by a label, each as one line for all attempts and pods."""
    return f"max by ({label}) ({of_run(metric)})"


def average(metric: str) -> str:
    """The mean over rounds or benchmarks, without those that were not measured (NaN)."""
    return f"avg({of_run(metric)} >= 0)"


def quantile(share: float, histogram: str, window: str) -> str:
    """A quantile of a histogram of the selected run within a window."""
    return f"histogram_quantile({share:g}, sum by (le) (rate({of_run(histogram + '_bucket')}[{window}])))"


def _matchers(**labels: str) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())
