"""The numbers at the top of a run's dashboard."""

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PHASE_COLOURS, RED, TURQUOISE, YELLOW, looks
from tools.grafana.panels import Number
from tools.grafana.queries import average, of_run, one, reported_of_run

_UP = f"max({of_run('up', job='seele-trainer')}"

OVERVIEW = (
    Number("Phase", "none", show="name", line=False, absent="Not found", highest=1, base=GREY)
    .styled(*looks({**PHASE_COLOURS, "Trainer up": GREEN, "Trainer down": RED}))
    .healthy("The run's phase; without an operator, whether its trainer answers. Running is good.")
    .query(
        "{{phase}}",
        f"max by (phase) ({reported_of_run('seele_run_phase')} == 1)"
        f' or on() label_replace({_UP}) == 1, "phase", "Trainer up", "", "")'
        f' or on() label_replace({_UP}) == 0, "phase", "Trainer down", "", "")',
        instant=True,
    ),
    Number("Steps", "none", show="value_and_name", line=False, base=BLUE)
    .healthy("Training steps that are done and planned. Done grows steadily until it reaches planned.")
    .query("done", one("seele_training_step"))
    .query("planned", one("seele_training_steps_total_planned")),
    Number("Time left", "s", base=BLUE, decimals=0)
    .healthy("Steps left at the current pace, without evaluations and checkpoints. It falls to zero.")
    .query(
        "time left",
        f"clamp_min({one('seele_training_steps_total_planned')} - {one('seele_training_step')}, 0)"
        f" * avg(avg_over_time({of_run('seele_step_seconds')}[{WINDOW}]))",
    ),
    Number("Held-out accuracy", "percentunit", highest=1, decimals=1)
    .healthy("Greedy accuracy without hints in the last evaluation, mean over benchmarks. It rises.")
    .query("held-out", average("seele_eval_accuracy")),
    Number(
        "Accuracy with hints", "percentunit", show="value_and_name", line=False, highest=1, decimals=0, base=TURQUOISE
    )
    .healthy("Accuracy of the last step's rollouts, and the target accuracy. They agree.")
    .query("now", average("seele_rollout_accuracy"))
    .query("target", one("seele_target_accuracy")),
    Number("Hint rate", "percentunit", highest=1, decimals=0, base=YELLOW)
    .healthy("Mean share of the solution that is shown. It falls toward zero as the model learns.")
    .query("hint rate", average("seele_hint_rate_mean")),
    Number("Generated tokens", "suffix: tok/s", base=BLUE, decimals=0)
    .healthy("Tokens generated per second of wall-clock time. As high as at the start.")
    .query("generated", f"sum(rate({of_run('seele_tokens_total', kind='generated')}[{WINDOW}]))"),
    Number("Attempt", "none", line=False)
    .healthy("1 if the run was never restarted.")
    .query("attempt", f"max({reported_of_run('seele_run_attempt')}) or on() {one('seele_attempt')}")
    .limit(2, YELLOW)
    .limit(4, ORANGE),
)
