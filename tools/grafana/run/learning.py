"""Is it learning? What the rollouts earn, how well hints are controlled, and what the loss says."""

from __future__ import annotations

from tools.grafana.dashboard import WINDOW
from tools.grafana.looks import BLUE, GREEN, GREY, ORANGE, PINK, PURPLE, RED, TURQUOISE, YELLOW, Limit, Look, looks
from tools.grafana.panels import Graph, HeatMap
from tools.grafana.queries import Query, by, of_run, one, quantile

# Far apart in hue, above all those of the first four, which is how many rounds a run has by default. None is the target's.
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
        description="Held-out and unhinted accuracy rise; the reward, which is earned with hints, stays near the target.",
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
        description="Later rounds lie on the target: then hints are as long as they should be.",
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
        description="The mean share of the solution shown falls: the model needs less and less help.",
        unit="percentunit",
        queries=(Query(by("round", "seele_hint_rate_mean"), "round {{round}}"),),
        highest=1,
        fill=0,
        looks=_ROUNDS,
    ),
    HeatMap(
        title="Hint rates of all rollouts",
        description="The cloud moves down, from long hints to none; a wide one means that problems differ in difficulty.",
        unit="percentunit",
        queries=(Query(f"sum by (le) (increase({of_run('seele_hint_rate_bucket')}[{WINDOW}]))", "{{le}}"),),
        highest=1,
    ),
    Graph(
        title="Learning efficiency",
        description="4a(1−a) is near 1 and few groups have equal rewards, which teach nothing.",
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
        description="It rises. At −1 half of the rollouts succeed only with the whole solution shown, at 0 without a hint.",
        unit="none",
        queries=_quantiles("seele_irt_ability"),
        lowest=None,
        decimals=2,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Discrimination k of fitted curves",
        description="How sharply accuracy depends on the hint. Steady; all at one value means that fits hit a bound.",
        unit="none",
        queries=_quantiles("seele_irt_discrimination"),
        decimals=1,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Guessing b of fitted curves",
        description="Accuracy that needs no skill. It stays low; high values mean that answers can be guessed.",
        unit="percentunit",
        queries=_quantiles("seele_irt_guessing"),
        highest=1,
        fill=0,
        looks=_QUANTILES,
    ),
    Graph(
        title="Loss terms",
        description="The policy term wanders around zero, the supervised term falls. All are before their coefficients but total.",
        unit="none",
        queries=(Query('max by (term) (seele_loss{namespace="$namespace", run="$run", term!="kl"})', "{{term}}"),),
        lowest=None,
        fill=0,
        looks=looks({"policy": BLUE, "supervised": YELLOW, "total": GREEN}),
    ),
    Graph(
        title="KL divergence to the initial model",
        description="It grows slowly and then levels off. A steep rise means that the model is running away.",
        unit="suffix: nats",
        queries=(Query(one("seele_loss", term="kl"), "KL to the initial model"),),
        looks=looks({"KL to the initial model": PURPLE}),
    ),
    Graph(
        title="Mismatch of engine and trainer",
        description="KL divergence between the policy that sampled and the one that learns: far below 0.015 nats a token.",
        unit="suffix: nats",
        queries=(Query(one("seele_policy_mismatch_kl"), "mismatch KL"),),
        decimals=6,  # below is rounding
        limits=(Limit(0.015, RED),),
        looks=looks({"mismatch KL": BLUE}),
    ),
    Graph(
        title="Size of updates",
        description="The gradient's norm is steady; few tokens are clipped. Spikes that stay ask for a lower learning rate.",
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
        description="It follows the schedule that the run asks for.",
        unit="sci",
        queries=(Query(one("seele_learning_rate"), "learning rate"),),
        width=12,
        looks=looks({"learning rate": TURQUOISE}),
    ),
)
