"""PromQL as the panels write it: one expression with its legend, and selectors for the series of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

Format = Literal["time_series", "heatmap", "table"]


@dataclass(frozen=True)
class Query:
    """An expression and what its series are called; `instant` asks for the last moment of the time range only."""

    expr: str
    legend: str
    instant: bool = False

    def json(self, number: int, shape: Format) -> dict[str, Any]:
        """The target of a panel; the first is A."""
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
    """Series that the trainers of the chosen run export, or pass on from their rollout servers."""
    return f"{metric}{{{_matchers(namespace='$namespace', run='$run', **labels)}}}"


def told_of_run(metric: str, **labels: str) -> str:
    """Series that the operator exports about the chosen run; its own namespace has the label `namespace`."""
    return f"{metric}{{{_matchers(run_namespace='$namespace', run='$run', **labels)}}}"


def one(metric: str, **labels: str) -> str:
    """A series of the chosen run, the same line over all of its attempts and pods."""
    return f"max({of_run(metric, **labels)})"


def by(label: str, metric: str) -> str:
    """Series of the chosen run by a label, each the same line over all attempts and pods."""
    return f"max by ({label}) ({of_run(metric)})"


def average(metric: str) -> str:
    """The mean over rounds or benchmarks; one that was not played is NaN, and would make the mean NaN."""
    return f"avg({of_run(metric)} >= 0)"


def quantile(share: float, histogram: str, window: str) -> str:
    """A quantile of what a histogram of the chosen run has observed within a window."""
    return f"histogram_quantile({share:g}, sum by (le) (rate({of_run(histogram + '_bucket')}[{window}])))"


def _matchers(**labels: str) -> str:
    return ", ".join(f'{name}="{value}"' for name, value in labels.items())
