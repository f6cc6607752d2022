"""Is it learning? Rewards, the control of hints, and the loss."""

from __future__ import annotations

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PINK, PURPLE, RED, TURQUOISE, YELLOW, Limit, Look, looks
from tools.grafana.panels import Graph, HeatMap
from tools.grafana.queries import Query, by, of_run, one, quantile

# Distinct hues, especially for the four default rounds; none is the target's.
_ROUNDS = looks(
    {
        "round 1": YELLOW,
        "round 2": GREEN,
        "round 3": BLUE,
        "round 4": PURPLE,
        "round 5": ORANGE,
        "round 6": TURQUOISE,
        "round 7": PINK,
        "round 8": GREY,
    }
)
_QUANTILES = looks({"90 % below": PURPLE, "half below": BLUE, "10 % below": TURQUOISE})
_TARGET = Look("target", RED, dashed=True)


def _quantiles(histogram: str) -> tuple[Query, ...]:
    return (
        Query(quantile(0.9, histogram, WINDOW), "90 % below"),
        Query(quantile(0.5, histogram, WINDOW), "half below"),
        Query(quantile(0.1, histogram, WINDOW), "10 % below"),
    )


LEARNING = (
    Graph(
        title="Reward and accuracy without hints",
        description="Held-out and unhinted accuracy rise; the reward, which includes hints, stays near the target.",
        unit="percentunit",
        queries=(
            Query(one("seele_reward_mean"), "reward, with hints"),
            Query(one("seele_unhinted_accuracy"), "probes, no hints"),
            Query(by("benchmark", "seele_eval_accuracy"), "{{benchmark}}, greedy, no hints"),
        ),
        width=12,
        height=9,
        highest=1,
        looks=(
            Look("reward, with hints", BLUE),
            Look("probes, no hints", YELLOW),
            Look("held-out, greedy, no hints", GREEN),
        ),
    ),
    Graph(
        title="Accuracy by round, against the target",
        description="Later rounds are on the target, which means that hints have the right length.",
        unit="percentunit",
        queries=(
            Query(by("round", "seele_rollout_accuracy"), "round {{round}}"),
            Query(one("seele_target_accuracy"), "target"),
        ),
        width=12,
        height=9,
        highest=1,
        fill=0,
        looks=(*_ROUNDS, _TARGET),
    ),
    Graph(
        title="Hint rate by round",
        description="The mean share of the solution that is shown falls as the model needs less help.",
        unit="percentunit",
        queries=(Query(by("round", "seele_hint_rate_mean"), "round {{round}}"),),
        highest=1,
        fill=0,
        looks=_ROUNDS,
    ),
    HeatMap(
        title="Hint rates of all rollouts",
        description="The distribution moves from long hints to none; a wide one means that problems differ in difficulty.",
        unit="percentunit",
        queries=(Query(f"sum by (le) (increase({of_run('seele_hint_rate_bucket')}[{WINDOW}]))", "{{le}}"),),
        highest=1,
    ),
    Graph(
        title="Learning efficiency",
        description="4a(1−a) is near 1. Few groups have equal rewards, from which nothing is learned.",
        unit="percentunit",
        queries=(
            Query(one("seele_learning_efficiency"), "4a(1−a), mean over groups"),
            Query(one("seele_zero_gradient_groups_ratio"), "groups without a gradient"),
        ),
        highest=1,
        looks=looks({"4a(1−a), mean over groups": GREEN, "groups without a gradient": RED}),
    ),
    Graph(
        title="Ability µ of fitted curves",
        description="It rises. At −1 half of the rollouts succeed with the whole solution shown, at 0 without a hint.",
        unit="none",
        queries=_quantiles("seele_irt_ability"),
        lowest=None,
        decimals=2,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Discrimination k of fitted curves",
        description="How steeply accuracy depends on the hint. Steady; if all values are equal, fits are at a bound.",
        unit="none",
        queries=_quantiles("seele_irt_discrimination"),
        decimals=1,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Guessing b of fitted curves",
        description="Accuracy without any skill. It stays low; high values mean that answers can be guessed.",
        unit="percentunit",
        queries=_quantiles("seele_irt_guessing"),
        highest=1,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Loss terms",
        description="The policy term stays around zero, the supervised term falls. Only the total includes coefficients.",
        unit="none",
        queries=(Query('max by (term) (seele_loss{namespace="$namespace", run="$run", term!="kl"})', "{{term}}"),),
        lowest=None,
        fill=0,
        looks=looks({"policy": BLUE, "supervised": YELLOW, "total": GREEN}),
    ),
    Graph(
        title="KL divergence to the initial model",
        description="It grows slowly and then levels off. A steep rise means that the training diverges.",
        unit="suffix: nats",
        queries=(Query(one("seele_loss", term="kl"), "KL to the initial model"),),
        looks=looks({"KL to the initial model": PURPLE}),
    ),
    Graph(
        title="Mismatch of engine and trainer",
        description="KL divergence between the policies that sample and learn: far below 0.015 nats per token.",
        unit="suffix: nats",
        queries=(Query(one("seele_policy_mismatch_kl"), "mismatch KL"),),
        decimals=6,  # smaller values are rounding errors
        limits=(Limit(0.015, RED),),
        looks=looks({"mismatch KL": BLUE}),
    ),
    Graph(
        title="Size of updates",
        description="The gradient norm is steady and few tokens are clipped. If spikes persist, lower the learning rate.",
        unit="none",
        queries=(
            Query(one("seele_gradient_norm"), "gradient norm"),
            Query(one("seele_clip_ratio"), "clipped tokens"),
        ),
        width=12,
        fill=0,
        looks=(Look("gradient norm", BLUE), Look("clipped tokens", ORANGE, right_axis_unit="percentunit")),
    ),
    Graph(
        title="Learning rate",
        description="It follows the schedule in the run's spec.",
        unit="sci",
        queries=(Query(one("seele_learning_rate"), "learning rate"),),
        width=12,
        looks=looks({"learning rate": TURQUOISE}),
    ),
)
