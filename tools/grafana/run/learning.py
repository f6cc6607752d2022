"""Is it learning? Rewards, the control of hints, and the loss."""

import dataclasses

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PINK, PURPLE, RED, TURQUOISE, YELLOW, Look, looks
from tools.grafana.panels import Graph, HeatMap
from tools.grafana.queries import by, of_run, one, quantile

# Distinct hues, especially for the four default rounds; none is the target's.
_HUES = (YELLOW, GREEN, BLUE, PURPLE, ORANGE, TURQUOISE, PINK, GREY)
_REVEALABLE = "seele_solution_revealable_ratio"
_ROUNDS = looks({f"round {number}": hue for number, hue in enumerate(_HUES, start=1)})


def _fitted(graph: Graph, histogram: str) -> Graph:
    return (
        dataclasses.replace(graph, fill=0)
        .query("90 % below", quantile(0.9, histogram, WINDOW), PURPLE)
        .query("half below", quantile(0.5, histogram, WINDOW), BLUE)
        .query("10 % below", quantile(0.1, histogram, WINDOW), TURQUOISE)
    )


LEARNING = (
    Graph("Reward and accuracy without hints", "percentunit", width=12, height=9, highest=1)
    .healthy("Held-out and unhinted accuracy rise; the reward, which includes hints, stays near the target.")
    .query("reward, with hints", one("seele_reward_mean"), BLUE)
    .query("probes, no hints", one("seele_unhinted_accuracy"), YELLOW)
    .query("{{benchmark}}, greedy, no hints", by("benchmark", "seele_eval_accuracy"))
    .styled(Look("held-out, greedy, no hints", GREEN)),
    Graph("Accuracy by round, against the target", "percentunit", width=12, height=9, highest=1, fill=0)
    .styled(*_ROUNDS, Look("target", RED, dashed=True))
    .healthy("Later rounds are on the target, which means that hints have the right length.")
    .query("round {{round}}", by("round", "seele_rollout_accuracy"))
    .query("target", one("seele_target_accuracy")),
    Graph("Hint rate by round", "percentunit", highest=1, fill=0)
    .styled(*_ROUNDS)
    .healthy("The mean share of the solution that is shown falls as the model needs less help.")
    .query("round {{round}}", by("round", "seele_hint_rate_mean")),
    HeatMap("Hint rates of all rollouts", "percentunit", highest=1)
    .healthy("The distribution moves from long hints to none; a wide one means that problems differ in difficulty.")
    .query("{{le}}", f"sum by (le) (increase({of_run('seele_hint_rate_bucket')}[{WINDOW}]))"),
    Graph("Learning efficiency", "percentunit", highest=1)
    .healthy("4a(1−a) is near 1. Few groups have equal rewards, from which nothing is learned.")
    .query("4a(1−a), mean over groups", one("seele_learning_efficiency"), GREEN)
    .query("groups without a gradient", one("seele_zero_gradient_groups_ratio"), RED),
    _fitted(Graph("Ability µ of fitted curves", "none", lowest=None, decimals=2), "seele_irt_ability").healthy(
        "It rises. At −1 half of the rollouts succeed with the whole solution shown, at 0 without a hint."
    ),
    _fitted(Graph("Discrimination k of fitted curves", "none", decimals=1), "seele_irt_discrimination").healthy(
        "How steeply accuracy depends on the hint. Steady; if all values are equal, fits are at a bound."
    ),
    _fitted(Graph("Guessing b of fitted curves", "percentunit", highest=1), "seele_irt_guessing").healthy(
        "Accuracy without any skill. It stays low; high values mean that answers can be guessed."
    ),
    Graph("Loss terms", "none", lowest=None, fill=0)
    .styled(*looks({"policy": BLUE, "supervised": YELLOW, "total": GREEN}))
    .healthy("The policy term stays around zero, the supervised term falls. Only the total includes coefficients.")
    .query("{{term}}", 'max by (term) (seele_loss{namespace="$namespace", run="$run", term!="kl"})'),
    Graph("KL divergence to the initial model", "suffix: nats")
    .healthy("It grows slowly and then levels off. A steep rise means that the training diverges.")
    .query("KL to the initial model", one("seele_loss", term="kl"), PURPLE),
    Graph("Mismatch of engine and trainer", "suffix: nats", decimals=6)  # smaller values are rounding errors
    .healthy("KL divergence between the policies that sample and learn: far below 0.015 nats per token.")
    .query("mismatch KL", one("seele_policy_mismatch_kl"), BLUE)
    .limit(0.015, RED),
    Graph("Size of updates", "none", fill=0)
    .healthy("The gradient norm is steady and few tokens are clipped. If spikes persist, lower the learning rate.")
    .query("gradient norm", one("seele_gradient_norm"), BLUE)
    .query("clipped tokens", one("seele_clip_ratio"))
    .styled(Look("clipped tokens", ORANGE, right_axis_unit="percentunit")),
    Graph("Learning rate", "sci")
    .healthy("It follows the schedule in the run's spec.")
    .query("learning rate", one("seele_learning_rate"), TURQUOISE),
    Graph("What hints may show of solutions", "percentunit", highest=1)
    .healthy("Constant: a property of the data. The mean is high, and hardly any problem has no hint at all.")
    .query("mean share of its tokens", f"{one(_REVEALABLE + '_sum')} / {one(_REVEALABLE + '_count')}", BLUE)
    .query(
        "problems without any hint", f"{one(_REVEALABLE + '_bucket', le='0.0')} / {one(_REVEALABLE + '_count')}", RED
    ),
)
