"""The numbers at the top of the fleet's dashboard."""

from tools.grafana.fleet.selectors import in_phase, of_operator, of_trainers
from tools.grafana.looks import BLUE, GREEN, LIGHT_BLUE, ORANGE, PURPLE, RED
from tools.grafana.panels import Number

_SINCE_PROGRESS = f"time() - {of_trainers('seele_last_progress_timestamp_seconds')}"

# The conditions of the alert SeeleRunStalled; a test compares them.
STALLED = (
    f"count(max by (namespace, run) ({_SINCE_PROGRESS} > 1800"
    f" unless {_SINCE_PROGRESS} < 10 * {of_trainers('seele_step_seconds')}"
    f" unless {_SINCE_PROGRESS} < 3 * {of_trainers('seele_eval_seconds')}"
    f" unless {of_trainers('seele_training_step')} >= {of_trainers('seele_training_steps_total_planned')}))"
    " or on() vector(0)"
)


def _runs(title: str, description: str, colour: str, *phases: str, bad: bool = False) -> Number:
    number = Number(title, "none", base=GREEN if bad else colour, decimals=0).healthy(description)
    number = number.query(title.lower(), in_phase(*phases))
    return number.limit(1, colour) if bad else number


OVERVIEW = (
    _runs("Running", "Runs that are training.", GREEN, "Running"),
    _runs(
        "Starting", "Runs that wait for pods or start them. Few, and not for long.", LIGHT_BLUE, "Pending", "Starting"
    ),
    _runs(
        "Restarting", "Runs that resume from a checkpoint after a failure. Rarely any.", ORANGE, "Restarting", bad=True
    ),
    _runs("Suspended", "Runs that a user has suspended.", PURPLE, "Suspended"),
    _runs("Succeeded", "Runs that have finished all steps.", BLUE, "Succeeded"),
    _runs("Failed", "Runs that failed; `seele status` has the reason. None.", RED, "Failed", bad=True),
    Number("Stalled", "none", decimals=0)
    .healthy("Runs without progress for half an hour, ten steps or three evaluations, whichever is longest. None.")
    .query("stalled", STALLED)
    .limit(1, RED),
    Number("Leading operators", "none", base=RED, decimals=0, absent="no operator")
    .healthy("Exactly one, regardless of the number of replicas.")
    .query("leading", f"sum({of_operator('seele_operator_leader')})")
    .limit(1, GREEN)
    .limit(2, RED),
)
