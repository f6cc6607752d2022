"""How all runs learn, side by side."""

from __future__ import annotations

from grafana.fleet.selectors import live
from grafana.panels import Graph
from grafana.queries import Query

COMPARISON = (
    Graph(
        title="Held-out accuracy by run",
        description="Greedy, without hints, the mean over benchmarks. Every line rises.",
        unit="percentunit",
        queries=(Query(live("seele_eval_accuracy", "avg"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Hint rate by run",
        description="Falls as the models need less help. A line at 1 is a run whose problems are too hard.",
        unit="percentunit",
        queries=(Query(live("seele_hint_rate_mean", "avg"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Share of steps done, by run",
        description="Rises steadily. A flat line is a run that waits, restarts or is stuck.",
        unit="percentunit",
        queries=(Query(f"{live('seele_training_step')} / {live('seele_training_steps_total_planned')}", "{{run}}"),),
        highest=1,
        fill=0,
    ),
)
