"""The operator: reconciles, requests to the API server, memory and CPU."""

from __future__ import annotations

from tools.grafana.dashboard import RATE
from tools.grafana.fleet.selectors import of_operator, operator_quantile
from tools.grafana.looks import BLUE, ORANGE, RED, Limit, looks
from tools.grafana.panels import Graph
from tools.grafana.queries import Query

PASS = "seele_operator_reconcile_seconds"
REQUEST = "seele_operator_api_request_seconds"

OPERATOR = (
    Graph(
        title="Leader",
        description="One is at 1, the others at 0; a change of leader does no harm.",
        unit="none",
        queries=(Query(f"max by (pod) ({of_operator('seele_operator_leader')})", "{{pod}}"),),
        width=6,
        highest=1,
        steps=True,
        decimals=0,
    ),
    Graph(
        title="Runs waiting for a reconcile",
        description="Near zero: changes are handled immediately.",
        unit="none",
        queries=(Query(f"max by (pod) ({of_operator('seele_operator_queue_depth')})", "{{pod}}"),),
        width=6,
        limits=(Limit(100, ORANGE),),
        decimals=0,
    ),
    Graph(
        title="Duration of a reconcile",
        description="A few milliseconds for half, and below a second for nearly all; depends on the API server.",
        unit="s",
        queries=(
            Query(operator_quantile(0.99, PASS, RATE), "99 % below"),
            Query(operator_quantile(0.5, PASS, RATE), "half below"),
        ),
        width=6,
        looks=looks({"99 % below": RED, "half below": BLUE}),
    ),
    Graph(
        title="Failed reconciles by reason",
        description="Almost none. Conflicts and short outages resolve themselves; refused and internal do not.",
        unit="ops",
        queries=(
            Query(
                f"sum by (reason) (rate({of_operator('seele_operator_reconcile_errors_total')}[{RATE}]))", "{{reason}}"
            ),
        ),
        width=6,
    ),
    Graph(
        title="Requests to the API server",
        description="Low and proportional to the number of runs, since changes come from a watch, not from polling.",
        unit="reqps",
        queries=(Query(f"sum by (verb) (rate({of_operator(REQUEST + '_count')}[{RATE}]))", "{{verb}}"),),
        width=6,
        stacked=True,
    ),
    Graph(
        title="API server latency, 99 % below",
        description="Tens of milliseconds. A slow API server slows down everything in the cluster.",
        unit="s",
        queries=(Query(operator_quantile(0.99, REQUEST, RATE, "verb"), "{{verb}}"),),
        width=6,
        limits=(Limit(1, ORANGE),),
    ),
    Graph(
        title="Memory",
        description="Below 150 MB with a few runs, and growing with their number.",
        unit="bytes",
        queries=(Query(f"max by (pod) ({of_operator('process_resident_memory_bytes')})", "{{pod}}"),),
        width=6,
    ),
    Graph(
        title="CPU",
        description="A small part of one core.",
        unit="percentunit",
        queries=(Query(f"sum by (pod) (rate({of_operator('process_cpu_seconds_total')}[{RATE}]))", "{{pod}}"),),
        width=6,
    ),
)
