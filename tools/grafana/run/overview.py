"""The numbers at the top of a run's dashboard."""

from __future__ import annotations

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PHASE_COLOURS, RED, TURQUOISE, YELLOW, Limit, looks
from tools.grafana.panels import Number
from tools.grafana.queries import Query, average, of_run, one, reported_of_run

_UP = f"max({of_run('up', job='seele-trainer')}"

OVERVIEW = (
    Number(
        title="Phase",
        description="The run's phase; without an operator, whether its trainer answers. Running is good.",
        unit="none",
        queries=(
            Query(
                f"max by (phase) ({reported_of_run('seele_run_phase')} == 1)"
                f' or on() label_replace({_UP}) == 1, "phase", "Trainer up", "", "")'
                f' or on() label_replace({_UP}) == 0, "phase", "Trainer down", "", "")',
                "{{phase}}",
                instant=True,
            ),
        ),
        show="name",
        line=False,
        absent="Not found",
        highest=1,
        base=GREY,
        looks=looks({**PHASE_COLOURS, "Trainer up": GREEN, "Trainer down": RED}),
    ),
    Number(
        title="Steps",
        description="Training steps that are done and planned. Done grows steadily until it reaches planned.",
        unit="none",
        queries=(
            Query(one("seele_training_step"), "done"),
            Query(one("seele_training_steps_total_planned"), "planned"),
        ),
        show="value_and_name",
        line=False,
        base=BLUE,
    ),
    Number(
        title="Time left",
        description="Steps left at the current pace, without evaluations and checkpoints. It falls to zero.",
        unit="s",
        queries=(
            Query(
                f"clamp_min({one('seele_training_steps_total_planned')} - {one('seele_training_step')}, 0)"
                f" * avg(avg_over_time({of_run('seele_step_seconds')}[{WINDOW}]))",
                "time left",
            ),
        ),
        base=BLUE,
        decimals=0,
    ),
    Number(
        title="Held-out accuracy",
        description="Greedy accuracy without hints in the last evaluation, mean over benchmarks. It rises.",
        unit="percentunit",
        queries=(Query(average("seele_eval_accuracy"), "held-out"),),
        highest=1,
        decimals=1,
    ),
    Number(
        title="Accuracy with hints",
        description="Accuracy of the last step's rollouts, and the target accuracy. They agree.",
        unit="percentunit",
        queries=(
            Query(average("seele_rollout_accuracy"), "now"),
            Query(one("seele_target_accuracy"), "target"),
        ),
        show="value_and_name",
        line=False,
        highest=1,
        decimals=0,
        base=TURQUOISE,
    ),
    Number(
        title="Hint rate",
        description="Mean share of the solution that is shown. It falls toward zero as the model learns.",
        unit="percentunit",
        queries=(Query(average("seele_hint_rate_mean"), "hint rate"),),
        highest=1,
        decimals=0,
        base=YELLOW,
    ),
    Number(
        title="Generated tokens",
        description="Tokens generated per second of wall-clock time. As high as at the start.",
        unit="suffix: tok/s",
        queries=(Query(f"sum(rate({of_run('seele_tokens_total', kind='generated')}[{WINDOW}]))", "generated"),),
        base=BLUE,
        decimals=0,
    ),
    Number(
        title="Attempt",
        description="1 if the run was never restarted.",
        unit="none",
        queries=(
            Query(
                f"max({reported_of_run('seele_run_attempt')}) or on() {one('seele_attempt')}",
                "attempt",
            ),
        ),
        line=False,
        limits=(Limit(2, YELLOW), Limit(4, ORANGE)),
    ),
)
