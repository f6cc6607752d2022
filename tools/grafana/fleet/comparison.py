"""How all runs learn, side by side."""

from __future__ import annotations

from tools.grafana.fleet.selectors import live, told
from tools.grafana.panels import Graph
from tools.grafana.queries import Query

COMPARISON = (
    Graph(
        title="Accuracy without hints, by run",
        description="Held-out where there is an evaluation, else of the probes. Every line rises.",
        unit="percentunit",
        queries=(Query(told("seele_run_accuracy"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Hint rate by run",
        description="Falls as the models need less help. A line at 1 is a run whose problems are too hard.",
        unit="percentunit",
        queries=(Query(live("seele_hint_rate_mean"), "{{run}}"),),
        highest=1,
        fill=0,
    ),
    Graph(
        title="Share of steps done, by run",
        description="Rises steadily. A flat line is a run that waits, restarts or is stuck.",
        unit="percentunit",
        queries=(Query(f"{told('seele_run_step')} / {told('seele_run_steps_planned')}", "{{run}}"),),
        highest=1,
        fill=0,
    ),
)
