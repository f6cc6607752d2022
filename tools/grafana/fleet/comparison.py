"""How runs learn, side by side."""

from __future__ import annotations

from tools.grafana.fleet.selectors import live, reported
from tools.grafana.panels import Graph
from tools.grafana.queries import Query

COMPARISON = (
    Graph(
        title="Accuracy without hints, by run",
        description="On held-out problems, or on probes without an evaluation. Every line rises.",
        unit="percentunit",
        queries=(Query(reported("seele_run_accuracy"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Hint rate by run",
        description="Falls as models need less help. A line at 1 means that the problems are too hard.",
        unit="percentunit",
        queries=(Query(live("seele_hint_rate_mean"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Share of steps done, by run",
        description="Rises steadily. A flat line is a run that waits, restarts or is stuck.",
        unit="percentunit",
        queries=(Query(f"{reported('seele_run_step')} / {reported('seele_run_steps_planned')}", "{{run}}"),),
        highest=1,
        fill=0,
    ),
)
