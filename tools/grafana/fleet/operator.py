"""The operator: reconciles, requests to the API server, memory and CPU."""

from tools.grafana.dashboard import RATE
from tools.grafana.fleet.selectors import of_operator, operator_quantile
from tools.grafana.looks import BLUE, ORANGE, RED
from tools.grafana.panels import Graph

PASS = "seele_operator_reconcile_seconds"
REQUEST = "seele_operator_api_request_seconds"

OPERATOR = (
    Graph("Leader", "none", width=6, highest=1, steps=True, decimals=0)
    .healthy("One is at 1, the others at 0; a change of leader does no harm.")
    .query("{{pod}}", f"max by (pod) ({of_operator('seele_operator_leader')})"),
    Graph("Runs waiting for a reconcile", "none", width=6, decimals=0)
    .healthy("Near zero: changes are handled immediately.")
    .query("{{pod}}", f"max by (pod) ({of_operator('seele_operator_queue_depth')})")
    .limit(100, ORANGE),
    Graph("Duration of a reconcile", "s", width=6)
    .healthy("A few milliseconds for half, and below a second for nearly all; depends on the API server.")
    .query("99 % below", operator_quantile(0.99, PASS, RATE), RED)
    .query("half below", operator_quantile(0.5, PASS, RATE), BLUE),
    Graph("Failed reconciles by reason", "ops", width=6)
    .healthy("Almost none. Conflicts and short outages resolve themselves; refused and internal do not.")
    .query("{{reason}}", f"sum by (reason) (rate({of_operator('seele_operator_reconcile_errors_total')}[{RATE}]))"),
    Graph("Requests to the API server", "reqps", width=6, stacked=True)
    .healthy("Low and proportional to the number of runs, since changes come from a watch, not from polling.")
    .query("{{verb}}", f"sum by (verb) (rate({of_operator(REQUEST + '_count')}[{RATE}]))"),
    Graph("API server latency, 99 % below", "s", width=6)
    .healthy("Tens of milliseconds. A slow API server slows down everything in the cluster.")
    .query("{{verb}}", operator_quantile(0.99, REQUEST, RATE, "verb"))
    .limit(1, ORANGE),
    Graph("Memory", "bytes", width=6)
    .healthy("Below 150 MB with a few runs, and growing with their number.")
    .query("{{pod}}", f"max by (pod) ({of_operator('process_resident_memory_bytes')})"),
    Graph("CPU", "percentunit", width=6)
    .healthy("A small part of one core.")
    .query("{{pod}}", f"sum by (pod) (rate({of_operator('process_cpu_seconds_total')}[{RATE}]))"),
)
