"""Every metric that a trainer exports, in one table: name, type, label, meaning, and the record field it is read from.

Prometheus, TensorBoard, Weights & Biases and MLflow are all fed from this table, and the documentation can be generated
from it. There is no label with a value per problem: such series would grow without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from seele_trainer.config import TrainerConfig
from seele_trainer.records import EvaluationRecord, Histogram, IrtParameters, StepRecord

HINT_RATE_EDGES = tuple(index / 20 for index in range(21))
"""Bins of the hint-rate histogram: 5 % of the solution each."""

DISCRIMINATION_BUCKETS = (0.5, 1.0, 2.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 32.0, 50.0, 100.0)
# At an ability of -1 half of the rollouts succeed only with the whole solution shown, at 0 without any hint.
ABILITY_BUCKETS = (
    -2.0,
    -1.5,
    -1.25,
    -1.0,
    -0.9,
    -0.8,
    -0.7,
    -0.6,
    -0.5,
    -0.4,
    -0.3,
    -0.2,
    -0.1,
    0.0,
    0.25,
    0.5,
    1.0,
    2.0,
)
GUESSING_BUCKETS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0)

Values = Mapping[str, float | None]
"""Value by label value; the key is "" for a metric without a label, the value None for what was not measured."""

Source = TypeVar("Source", contravariant=True)


@dataclass(frozen=True)
class Metric(Generic[Source]):
    """A gauge or counter: its exported name, its label if any, and how its values are read from a record."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    read: Callable[[Source], Values]
    label: str | None = None


@dataclass(frozen=True)
class Observations:
    """One step's observations of a histogram: how many fell into each bucket, and their sum.

    `counts` is one longer than the buckets: its last entry lies above every bound.
    """

    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True)
class HistogramMetric:
    """A histogram over the whole run, fed one step at a time; `buckets` are inclusive upper bounds, ascending."""

    name: str
    help: str
    buckets: tuple[float, ...]
    read: Callable[[StepRecord, tuple[float, ...]], Observations | None]
    kind: Literal["histogram"] = "histogram"
    label: str | None = None


def hint_rate_histogram(rates: Sequence[float]) -> Histogram:
    """Count the hinting rates of a step's rollouts, each in [0, 1], in bins of 5 %."""
    counts, _ = np.histogram(np.asarray(rates, dtype=np.float64), bins=np.asarray(HINT_RATE_EDGES))
    return Histogram(edges=HINT_RATE_EDGES, counts=tuple(int(count) for count in counts))


def _one(value: float | None) -> Values:
    return {"": value}


def _by_round(values: Sequence[float | None]) -> Values:
    return {str(number): value for number, value in enumerate(values, start=1)}


def _hint_rates(record: StepRecord, buckets: tuple[float, ...]) -> Observations:
    histogram = record.hint_rate_histogram
    # A bin of the record counts for the first bucket that holds all of it; with equal bounds that is exact.
    places = np.searchsorted(np.asarray(buckets), np.asarray(histogram.edges[1:]) - 1e-9)
    counts = np.bincount(places, weights=histogram.counts, minlength=len(buckets) + 1)
    return Observations(tuple(int(count) for count in counts), record.hint_rate * sum(histogram.counts))


def _irt(
    pick: Callable[[IrtParameters], Sequence[float]],
) -> Callable[[StepRecord, tuple[float, ...]], Observations | None]:
    def read(record: StepRecord, buckets: tuple[float, ...]) -> Observations | None:
        if record.irt is None:
            return None
        values = np.asarray(pick(record.irt), dtype=np.float64)
        counts = np.bincount(np.searchsorted(np.asarray(buckets), values), minlength=len(buckets) + 1)
        return Observations(tuple(int(count) for count in counts), float(values.sum()))

    return read


def _evaluated(record: EvaluationRecord) -> Values:
    return {title: score.greedy_accuracy for title, score in record.scores.items()}


def _sampled(record: EvaluationRecord) -> Values:
    return {title: score.sampled_accuracy for title, score in record.scores.items() if score.samples}


RUN_METRICS: tuple[Metric[TrainerConfig], ...] = (
    Metric(
        "seele_training_steps_total_planned",
        "gauge",
        "Training steps that the run is going to make.",
        lambda config: _one(config.training.steps),
    ),
    Metric(
        "seele_target_accuracy",
        "gauge",
        "Rollout accuracy that the hints aim at, 0 to 1.",
        lambda config: _one(config.hints.target_accuracy),
    ),
)

STEP_METRICS: tuple[Metric[StepRecord], ...] = (
    Metric("seele_training_step", "gauge", "Training steps done.", lambda r: _one(r.step)),
    Metric(
        "seele_policy_version",
        "gauge",
        "Version of the policy that sampled the last step.",
        lambda r: _one(r.policy_version),
    ),
    Metric("seele_reward_mean", "gauge", "Mean reward of the last step's rollouts.", lambda r: _one(r.reward)),
    Metric(
        "seele_rollout_accuracy",
        "gauge",
        "Share of the last step's rollouts that were right, by round of a problem.",
        lambda r: _by_round(r.accuracy_by_round),
        "round",
    ),
    Metric(
        "seele_hint_rate_mean",
        "gauge",
        "Mean share of the solution that was shown in the last step, by round of a problem.",
        lambda r: _by_round(r.hint_rate_by_round),
        "round",
    ),
    Metric(
        "seele_unhinted_accuracy",
        "gauge",
        "Accuracy of the last step's probes, which get no hint and are not trained on; NaN without probes.",
        lambda r: _one(r.unhinted_accuracy),
    ),
    Metric(
        "seele_learning_efficiency",
        "gauge",
        "Mean of 4a(1-a) over the last step's groups, a being a group's accuracy; 1 is best.",
        lambda r: _one(r.learning_efficiency),
    ),
    Metric(
        "seele_zero_gradient_groups_ratio",
        "gauge",
        "Share of the last step's groups whose rewards are all equal, which teach nothing.",
        lambda r: _one(r.zero_gradient_groups),
    ),
    Metric(
        "seele_irt_fit_seconds",
        "gauge",
        "Seconds that fitting curves took in the last step.",
        lambda r: _one(r.irt_fit_seconds),
    ),
    Metric(
        "seele_irt_fit_fallbacks_total",
        "counter",
        "Curve fits that failed and were answered by a fallback.",
        lambda r: _one(r.irt_fit_fallbacks),
    ),
    Metric(
        "seele_loss",
        "gauge",
        "Loss of the last step by term (policy, hint, kl, total); terms before their coefficients.",
        lambda r: {"policy": r.losses.policy, "hint": r.losses.hint, "kl": r.losses.kl, "total": r.losses.total},
        "term",
    ),
    Metric(
        "seele_gradient_norm",
        "gauge",
        "Global norm of the last step's gradient, before clipping.",
        lambda r: _one(r.gradient_norm),
    ),
    Metric(
        "seele_clip_ratio",
        "gauge",
        "Share of generated tokens whose ratio was clipped in the last step.",
        lambda r: _one(r.clip_fraction),
    ),
    Metric(
        "seele_learning_rate", "gauge", "Learning rate of the last optimizer update.", lambda r: _one(r.learning_rate)
    ),
    Metric(
        "seele_policy_mismatch_kl",
        "gauge",
        "KL divergence of the trainer's policy from the one the engine sampled from, in nats per token (k3 estimate).",
        lambda r: _one(r.mismatch_kl),
    ),
    Metric(
        "seele_truncated_completions_ratio",
        "gauge",
        "Share of the last step's completions that hit the length limit.",
        lambda r: _one(r.truncated_completions),
    ),
    Metric(
        "seele_phase_seconds",
        "gauge",
        "Wall-clock seconds of the last step by phase (rollout, verify, train, sync, eval, checkpoint).",
        lambda r: {str(phase): seconds for phase, seconds in r.phase_seconds.items()},
        "phase",
    ),
    Metric("seele_step_seconds", "gauge", "Wall-clock seconds of the last step.", lambda r: _one(r.step_seconds)),
    Metric(
        "seele_weight_sync_seconds",
        "gauge",
        "Seconds the last weight sync took.",
        lambda r: _one(r.weight_sync_seconds),
    ),
    Metric(
        "seele_weight_sync_canary_difference",
        "gauge",
        "Mean absolute difference in nats of the canary's log-probabilities after the last weight sync.",
        lambda r: _one(r.canary_difference),
    ),
    Metric(
        "seele_tokens_total",
        "counter",
        "Tokens by kind (prompt, hint, generated, trained).",
        lambda r: {
            "prompt": r.tokens.prompt,
            "hint": r.tokens.hint,
            "generated": r.tokens.generated,
            "trained": r.tokens.trained,
        },
        "kind",
    ),
    Metric("seele_rollouts_total", "counter", "Rollouts sampled.", lambda r: _one(r.rollouts)),
    Metric(
        "seele_rollout_requests_total",
        "counter",
        "Requests to rollout servers by outcome (ok, retried, failed).",
        lambda r: {"ok": 0, "retried": 0, "failed": 0, **r.rollout_requests},
        "outcome",
    ),
    Metric(
        "seele_verifier_timeouts_total",
        "counter",
        "Checks of an answer that ran into the time limit.",
        lambda r: _one(r.verifier_timeouts),
    ),
)

HISTOGRAM_METRICS: tuple[HistogramMetric, ...] = (
    HistogramMetric("seele_hint_rate", "Share of the solution shown, by rollout.", HINT_RATE_EDGES[1:], _hint_rates),
    HistogramMetric(
        "seele_irt_discrimination",
        "Discrimination k of the fitted curves, by problem and step (Eq. 12).",
        DISCRIMINATION_BUCKETS,
        _irt(lambda irt: irt.discrimination),
    ),
    HistogramMetric(
        "seele_irt_ability",
        "Shifted ability mu of the fitted curves, by problem and step (Eq. 12).",
        ABILITY_BUCKETS,
        _irt(lambda irt: irt.ability),
    ),
    HistogramMetric(
        "seele_irt_guessing",
        "Guessing b of the fitted curves, by problem and step (Eq. 12).",
        GUESSING_BUCKETS,
        _irt(lambda irt: irt.guessing),
    ),
)

EVALUATION_METRICS: tuple[Metric[EvaluationRecord], ...] = (
    Metric(
        "seele_eval_accuracy",
        "gauge",
        "Greedy accuracy without hints in the last evaluation, by benchmark.",
        _evaluated,
        "benchmark",
    ),
    Metric(
        "seele_eval_sampled_accuracy",
        "gauge",
        "Mean accuracy of sampled answers without hints (avg@k) in the last evaluation, by benchmark.",
        _sampled,
        "benchmark",
    ),
    Metric("seele_eval_seconds", "gauge", "Seconds the last evaluation took.", lambda r: _one(r.seconds)),
)


def scalars(metrics: Sequence[Metric[Source]], record: Source) -> dict[str, float]:
    """What a tracker logs of a record: `reward_mean`, `rollout_accuracy/round_1`, …; what was not measured is left out.

    Counters are given as the step's own amount: a tracker that sums them needs no memory of earlier steps.
    """
    named: dict[str, float] = {}
    for metric in metrics:
        short = metric.name.removeprefix("seele_").removesuffix("_total")
        for label, value in metric.read(record).items():
            if value is not None:
                named[f"{short}/{metric.label}_{label}" if metric.label else short] = float(value)
    return named
