"""Runs: all of them now, their phases over time, how long they take to start, and how they learn."""

from __future__ import annotations

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
from tools.grafana.queries import Query

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
        title="All runs",
        description="All runs, linked to their own dashboards. Look first at those that failed or are near their limit.",
        unit="none",
        queries=(
            Query(reported("seele_run_phase", "phase", condition=" == 1"), "", instant=True),
            Query(f"{reported('seele_run_step')} / {reported('seele_run_steps_planned')}", "", instant=True),
            Query(reported("seele_run_step"), "", instant=True),
            Query(reported("seele_run_accuracy"), "", instant=True),
            Query(measured("seele_hint_rate_mean"), "", instant=True),
            Query(f"sum by (namespace, run) ({reported('seele_run_failures', 'class')})", "", instant=True),
            Query(
                f"max by (namespace, run) ({reported('seele_run_failures', 'class')}"
                f" / ({reported('seele_run_failures_limit', 'class')} > 0))",
                "",
                instant=True,
            ),
            Query(reported("seele_run_attempt"), "", instant=True),
        ),
        columns=(
            Column(field="namespace", title="Namespace"),
            Column(field="run", title="Run", link=RUN_URL),
            Column(field="phase", title="Phase", colours=PHASE_COLOURS, width=110),
            Column(field="Value #B", title="Progress", unit="percentunit", decimals=0, gauge=True),
            Column(field="Value #C", title="Step", decimals=0, width=80),
            Column(field="Value #D", title="Accuracy", unit="percentunit", decimals=1),
            Column(field="Value #E", title="Hint rate", unit="percentunit", decimals=0),
            Column(field="Value #F", title="Failures", decimals=0, limits=(Limit(1, ORANGE),), width=90),
            Column(
                field="Value #G",
                title="Of limit",
                unit="percentunit",
                decimals=0,
                limits=(Limit(0.3, ORANGE), Limit(0.7, RED)),
                width=110,
            ),
            Column(field="Value #H", title="Attempt", decimals=0, width=90),
        ),
        sort="Phase",
        width=24,
        height=9,
    ),
    Graph(
        title="Runs by phase",
        description="Runs go from grey to green to blue. Red ones failed, orange ones resume from a checkpoint.",
        unit="none",
        queries=(
            Query(
                "count by (phase) (max by (run_namespace, run, phase) "
                f'(seele_run_phase{{run_namespace=~"$namespace"}} {LEADING}))'
                # Phases without runs.
                f" or 0 * max by (phase) ({of_operator('seele_operator_runs')})",
                "{{phase}}",
            ),
        ),
        width=10,
        height=9,
        stacked=True,
        steps=True,
        decimals=0,
        looks=looks(PHASE_COLOURS),
    ),
    Timeline(
        title="Phases of each run",
        description="A long green bar. Orange parts are restarts; a bar that stays grey is waiting for resources.",
        unit="none",
        queries=(Query(_numbered(), "{{run}}"),),
        width=14,
        height=9,
        highest=len(_NUMBERS),
        decimals=0,
        meanings={number: (phase, PHASE_COLOURS[phase]) for phase, number in _NUMBERS.items()},
    ),
    Graph(
        title="Time to running",
        description="From a run's start until all its pods are running: image pulls, scheduling and vLLM's start.",
        unit="s",
        queries=(
            Query(operator_quantile(0.9, "seele_operator_time_to_running_seconds", "$__range"), "90 % below"),
            Query(operator_quantile(0.5, "seele_operator_time_to_running_seconds", "$__range"), "half below"),
        ),
        looks=looks({"90 % below": PURPLE, "half below": BLUE}),
    ),
    HeatMap(
        title="Distribution of start times",
        description="Starts are in one band; a second, higher one means that nodes pull images first.",
        unit="s",
        queries=(
            Query(
                f"sum by (le) (increase({of_operator('seele_operator_time_to_running_seconds_bucket')}[{WINDOW}]))",
                "{{le}}",
            ),
        ),
    ),
    Graph(
        title="Restarts by class",
        description="Few. Disruptions are caused by the cluster, application failures by the runs themselves.",
        unit="none",
        queries=(Query(restarts(WINDOW), "{{class}}"),),
        stacked=True,
        looks=looks({"application": RED, "disruption": ORANGE}),
    ),
)

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
