"""The dashboard of all runs and their operator."""

from tools.grafana.dashboard import MARK_STEP, Choice, Dashboard, Mark, Row
from tools.grafana.fleet.operator import OPERATOR
from tools.grafana.fleet.overview import OVERVIEW
from tools.grafana.fleet.runs import COMPARISON, RUNS
from tools.grafana.fleet.selectors import of_operator
from tools.grafana.looks import ORANGE

UID = "seele-fleet"

_RESTARTS = f"sum by (class) ({of_operator('seele_operator_restarts_total')}"

DASHBOARD = Dashboard(
    uid=UID,
    title="Seele / Fleet",
    description="All runs of a cluster and their operator. See docs/dashboards.md.",
    rows=(
        Row("", OVERVIEW),
        Row("Runs", RUNS),
        Row("How they learn", COMPARISON),
        Row("Operator", OPERATOR),
    ),
    choices=(Choice("namespace", "Namespace", "label_values(seele_run_phase, run_namespace)", many=True),),
    # Compared with the step before, so that each of several restarts has its line. `increase` over a window would merge them.
    marks=(Mark("Restarts", f"{_RESTARTS}) > {_RESTARTS} offset {MARK_STEP})", "a run restarts ({{class}})", ORANGE),),
    since="now-24h",
    refresh="1m",
    other=("One run", "/d/seele-run"),
)
