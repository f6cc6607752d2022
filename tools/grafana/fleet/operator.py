"""How the operator does: passes over runs, what it asks of the API server, and what it takes."""

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
        title="Who leads",
        description="One at 1, all others at 0; a change of the leader is no loss.",
        unit="none",
        queries=(Query(f"max by (pod) ({of_operator('seele_operator_leader')})", "{{pod}}"),),
        width=6,
        highest=1,
        steps=True,
        decimals=0,
    ),
    Graph(
        title="Runs that wait for a pass",
        description="Near zero: every change is looked at at once.",
        unit="none",
        queries=(Query(f"max by (pod) ({of_operator('seele_operator_queue_depth')})", "{{pod}}"),),
        width=6,
        limits=(Limit(100, ORANGE),),
        decimals=0,
    ),
    Graph(
        title="Duration of a pass over a run",
        description="Half are done in a few milliseconds, nearly all below a second; it follows the API server's answers.",
        unit="s",
        queries=(
            Query(operator_quantile(0.99, PASS, RATE), "99 % below"),
            Query(operator_quantile(0.5, PASS, RATE), "half below"),
        ),
        width=6,
        looks=looks({"99 % below": RED, "half below": BLUE}),
    ),
    Graph(
        title="Passes that failed, by reason",
        description="Next to none. Conflicts and short outages mend themselves; refused and internal ones do not.",
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
        description="In proportion to the number of runs, and low: a watch tells of changes, nobody polls.",
        unit="reqps",
        queries=(Query(f"sum by (verb) (rate({of_operator(REQUEST + '_count')}[{RATE}]))", "{{verb}}"),),
        width=6,
        stacked=True,
    ),
    Graph(
        title="API server's answer, 99 % below",
        description="Tens of milliseconds. Slow answers make everything in the cluster slow.",
        unit="s",
        queries=(Query(operator_quantile(0.99, REQUEST, RATE, "verb"), "{{verb}}"),),
        width=6,
        limits=(Limit(1, ORANGE),),
    ),
    Graph(
        title="Memory",
        description="Below 150 MB with a few runs, and in proportion to their number beyond.",
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
