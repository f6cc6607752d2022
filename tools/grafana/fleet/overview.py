"""The line of numbers on top: runs by what they need."""

from __future__ import annotations

from grafana.fleet.selectors import in_phase, of_operator, told
from grafana.looks import BLUE, GREEN, LIGHT_BLUE, ORANGE, PURPLE, RED, Limit
from grafana.panels import Number
from grafana.queries import Query

STALLED = (
    'count((time() - max by (namespace, run) (seele_last_progress_timestamp_seconds{namespace=~"$namespace"}) > 900)'
    f" and on (namespace, run) {told('seele_run_phase', phase='Running', condition=' == 1')})"
    " or on() vector(0)"
)


def _runs(title: str, description: str, colour: str, *phases: str, bad: bool = False) -> Number:
    limits = (Limit(1, colour),) if bad else ()
    return Number(
        title=title,
        description=description,
        unit="none",
        queries=(Query(in_phase(*phases), title.lower()),),
        base=GREEN if bad else colour,
        limits=limits,
        decimals=0,
    )


OVERVIEW = (
    _runs("Running", "Runs that train now.", GREEN, "Running"),
    _runs(
        "On their way",
        "Runs that wait for pods or start. They do not stay here for long.",
        LIGHT_BLUE,
        "Pending",
        "Starting",
    ),
    _runs(
        "Restarting", "Runs that go on from a checkpoint after a failure. Seldom any.", ORANGE, "Restarting", bad=True
    ),
    _runs("Suspended", "Runs that somebody stopped for now.", PURPLE, "Suspended"),
    _runs("Succeeded", "Runs that reached their last step.", BLUE, "Succeeded"),
    _runs("Failed", "Runs that gave up; `seele status` says why. None.", RED, "Failed", bad=True),
    Number(
        title="Stalled",
        description="Running, and nothing finished for a quarter of an hour. None, unless a step takes that long.",
        unit="none",
        queries=(Query(STALLED, "stalled"),),
        limits=(Limit(1, RED),),
        decimals=0,
    ),
    Number(
        title="Operators that lead",
        description="Exactly one, however many replicas there are.",
        unit="none",
        queries=(Query(f"sum({of_operator('seele_operator_leader')})", "leading"),),
        base=RED,
        limits=(Limit(1, GREEN), Limit(2, RED)),
        decimals=0,
        absent="no operator",
    ),
)
