"""Runs: all of them now, their phases over time, how long they take to start, and how they learn."""

from tools.grafana.dashboard import WINDOW
from tools.grafana.fleet.selectors import (
    LEADING,
    RUN_URL,
    live,
    measured,
    of_operator,
    operator_quantile,
    reported,
    restarts,
)
from tools.grafana.looks import BLUE, ORANGE, PHASE_COLOURS, PURPLE, RED, Limit, looks
from tools.grafana.panels import Column, Graph, HeatMap, Table, Timeline

_NUMBERS = {phase: number for number, phase in enumerate(PHASE_COLOURS, start=1)}


def _numbered() -> str:
    """The phase of each run as a number: a timeline needs one series per run."""
    parts = " or ".join(
        f'{number} * seele_run_phase{{run_namespace=~"$namespace", phase="{phase}"}}'
        for phase, number in _NUMBERS.items()
    )
    return f"max by (run_namespace, run) (({parts}) {LEADING})"


RUNS = (
    Table(
        "All runs",
        "none",
        columns=(
            Column("namespace", "Namespace"),
            Column("run", "Run", link=RUN_URL),
            Column("phase", "Phase", colours=PHASE_COLOURS, width=110),
            Column("Value #B", "Progress", unit="percentunit", decimals=0, gauge=True),
            Column("Value #C", "Step", decimals=0, width=80),
            Column("Value #D", "Accuracy", unit="percentunit", decimals=1),
            Column("Value #E", "Hint rate", unit="percentunit", decimals=0),
            Column("Value #F", "Failures", decimals=0, limits=(Limit(1, ORANGE),), width=90),
            Column(
                "Value #G",
                "Of limit",
                unit="percentunit",
                decimals=0,
                limits=(Limit(0.3, ORANGE), Limit(0.7, RED)),
                width=110,
            ),
            Column("Value #H", "Attempt", decimals=0, width=90),
        ),
        sort="Phase",
        width=24,
        height=9,
    )
    .healthy("All runs, linked to their own dashboards. Look first at those that failed or are near their limit.")
    .query("", reported("seele_run_phase", "phase", condition=" == 1"), instant=True)
    .query("", f"{reported('seele_run_step')} / {reported('seele_run_steps_planned')}", instant=True)
    .query("", reported("seele_run_step"), instant=True)
    .query("", reported("seele_run_accuracy"), instant=True)
    .query("", measured("seele_hint_rate_mean"), instant=True)
    .query("", f"sum by (namespace, run) ({reported('seele_run_failures', 'class')})", instant=True)
    .query(
        "",
        f"max by (namespace, run) ({reported('seele_run_failures', 'class')}"
        f" / ({reported('seele_run_failures_limit', 'class')} > 0))",
        instant=True,
    )
    .query("", reported("seele_run_attempt"), instant=True),
    Graph("Runs by phase", "none", width=10, height=9, stacked=True, steps=True, decimals=0)
    .styled(*looks(PHASE_COLOURS))
    .healthy("Runs go from grey to green to blue. Red ones failed, orange ones resume from a checkpoint.")
    .query(
        "{{phase}}",
        "count by (phase) (max by (run_namespace, run, phase) "
        f'(seele_run_phase{{run_namespace=~"$namespace"}} {LEADING}))'
        # Phases without runs.
        f" or 0 * max by (phase) ({of_operator('seele_operator_runs')})",
    ),
    Timeline(
        "Phases of each run",
        "none",
        width=14,
        height=9,
        highest=len(_NUMBERS),
        decimals=0,
        meanings={number: (phase, PHASE_COLOURS[phase]) for phase, number in _NUMBERS.items()},
    )
    .healthy("A long green bar. Orange parts are restarts; a bar that stays grey is waiting for resources.")
    .query("{{run}}", _numbered()),
    Graph("Time to running", "s")
    .healthy("From a run's start until all its pods are running: image pulls, scheduling and vLLM's start.")
    .query("90 % below", operator_quantile(0.9, "seele_operator_time_to_running_seconds", "$__range"), PURPLE)
    .query("half below", operator_quantile(0.5, "seele_operator_time_to_running_seconds", "$__range"), BLUE),
    HeatMap("Distribution of start times", "s")
    .healthy("Starts are in one band; a second, higher one means that nodes pull images first.")
    .query(
        "{{le}}", f"sum by (le) (increase({of_operator('seele_operator_time_to_running_seconds_bucket')}[{WINDOW}]))"
    ),
    Graph("Restarts by class", "none", stacked=True)
    .styled(*looks({"application": RED, "disruption": ORANGE}))
    .healthy("Few. Disruptions are caused by the cluster, application failures by the runs themselves.")
    .query("{{class}}", restarts(WINDOW)),
)

COMPARISON = (
    Graph("Accuracy without hints, by run", "percentunit", highest=1, fill=0)
    .healthy("On held-out problems, or on probes without an evaluation. Every line rises.")
    .query("{{run}}", reported("seele_run_accuracy")),
    Graph("Hint rate by run", "percentunit", highest=1, fill=0)
    .healthy("Falls as models need less help. A line at 1 means that the problems are too hard.")
    .query("{{run}}", live("seele_hint_rate_mean")),
    Graph("Share of steps done, by run", "percentunit", highest=1, fill=0)
    .healthy("Rises steadily. A flat line is a run that waits, restarts or is stuck.")
    .query("{{run}}", f"{reported('seele_run_step')} / {reported('seele_run_steps_planned')}"),
)
