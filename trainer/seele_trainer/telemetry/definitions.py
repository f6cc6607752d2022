"""Tables of every gauge and counter that a trainer exports: name, type, unit, meaning, and how its value is read.

Prometheus, TensorBoard, Weights & Biases and MLflow all use these tables, and docs/metrics.md is generated from them. No
label has a value per problem: such series would grow without bound.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from seele_trainer.config import TrainerConfig
from seele_trainer.rollout.protocol import RolloutServer, ServerState
from seele_trainer.run_folder.records import EvaluationRecord, StepPhase, StepRecord
from seele_trainer.telemetry.metric import SHARE, Metric, Values, one


@dataclass(frozen=True)
class Moment:
    """The state of a run at a scrape, between its steps."""

    attempt: int
    checkpoint_step: int
    progress_time: float
    """Seconds since the epoch."""
    servers: Sequence[RolloutServer]
    """Empty if the trainer samples in its own process."""


def _by_round(values: Sequence[float | None]) -> Values:
    return {str(number): value for number, value in enumerate(values, start=1)}


def _phases(record: StepRecord) -> Values:
    return {phase: record.phase_seconds.get(phase, 0.0) for phase in get_args(StepPhase)}


def _evaluated(record: EvaluationRecord) -> Values:
    return {title: score.greedy_accuracy for title, score in record.scores.items()}


def _sampled(record: EvaluationRecord) -> Values:
    return {title: score.sampled_accuracy for title, score in record.scores.items() if score.samples}


def _servers(moment: Moment) -> Values:
    found = Counter(server.state for server in moment.servers)
    return {state: found[state] for state in get_args(ServerState)} if moment.servers else {}


RUN_METRICS: tuple[Metric[TrainerConfig], ...] = (
    Metric(
        "seele_training_steps_total_planned",
        "steps",
        "Training steps planned in all.",
        lambda config: one(config.training.steps),
    ),
    Metric(
        "seele_target_accuracy",
        SHARE,
        "Rollout accuracy that the hints aim at, 0 to 1.",
        lambda config: one(config.hints.target_accuracy),
    ),
)

STEP_METRICS: tuple[Metric[StepRecord], ...] = (
    Metric("seele_training_step", "steps", "Training steps done.", lambda r: one(r.step)),
    Metric(
        "seele_policy_version",
        "version",
        "Version of the policy that sampled the last step.",
        lambda r: one(r.policy_version),
    ),
    Metric("seele_reward_mean", "reward", "Mean reward of the last step's rollouts.", lambda r: one(r.reward)),
    Metric(
        "seele_rollout_accuracy",
        SHARE,
        "Share of the last step's rollouts that were right, by round of a problem.",
        lambda r: _by_round(r.accuracy_by_round),
        "round",
    ),
    Metric(
        "seele_hint_rate_mean",
        SHARE,
        "Mean share of the solution that was shown in the last step, by round of a problem.",
        lambda r: _by_round(r.hint_rate_by_round),
        "round",
    ),
    Metric(
        "seele_unhinted_accuracy",
        SHARE,
        "Accuracy of the last step's probes, which get no hint and are not trained on; NaN without probes.",
        lambda r: one(r.unhinted_accuracy),
    ),
    Metric(
        "seele_learning_efficiency",
        SHARE,
        "Mean of 4a(1-a) over the last step's groups, a being a group's accuracy; 1 is best.",
        lambda r: one(r.learning_efficiency),
    ),
    Metric(
        "seele_zero_gradient_groups_ratio",
        SHARE,
        "Share of the last step's groups whose rewards are all equal and which teach nothing.",
        lambda r: one(r.zero_gradient_groups),
    ),
    Metric(
        "seele_irt_fit_seconds",
        "seconds",
        "Seconds spent on fitting curves in the last step.",
        lambda r: one(r.irt_fit_seconds),
    ),
    Metric(
        "seele_irt_fit_fallbacks_total",
        "fits",
        "Curve fits that failed and were answered by a fallback.",
        lambda r: one(r.irt_fit_fallbacks),
    ),
    Metric(
        "seele_loss",
        "loss; kl in nats per token",
        "Loss of the last step by term (policy, supervised, kl, total); terms before their coefficients.",
        lambda r: dict(r.losses),
        "term",
    ),
    Metric(
        "seele_gradient_norm",
        "norm",
        "Global norm of the last step's gradient, before clipping.",
        lambda r: one(r.gradient_norm),
    ),
    Metric(
        "seele_clip_ratio",
        SHARE,
        "Share of generated tokens whose ratio was clipped in the last step.",
        lambda r: one(r.clip_fraction),
    ),
    Metric(
        "seele_learning_rate",
        "per update",
        "Learning rate of the last optimizer update.",
        lambda r: one(r.learning_rate),
    ),
    Metric(
        "seele_policy_mismatch_kl",
        "nats per token",
        "KL divergence between the engine's policy and the trainer's, in nats per token (k3 estimate).",
        lambda r: one(r.mismatch_kl),
    ),
    Metric(
        "seele_truncated_completions_ratio",
        SHARE,
        "Share of the last step's completions that hit the length limit.",
        lambda r: one(r.truncated_completions),
    ),
    Metric(
        "seele_phase_seconds",
        "seconds",
        "Wall-clock seconds of the last step by phase (rollout, verify, train, sync, eval, checkpoint).",
        _phases,
        "phase",
    ),
    Metric("seele_step_seconds", "seconds", "Wall-clock seconds of the last step.", lambda r: one(r.step_seconds)),
    Metric(
        "seele_weight_sync_seconds",
        "seconds",
        "Duration of the last weight sync.",
        lambda r: one(r.weight_sync_seconds),
    ),
    Metric(
        "seele_weight_sync_canary_difference",
        "nats per token",
        "Mean absolute difference in nats of the canary's log-probabilities after the last weight sync.",
        lambda r: one(r.canary_difference),
    ),
    Metric(
        "seele_weight_syncs_unproven_total",
        "syncs",
        "Syncs whose versions are too similar for the canary to tell which one is served; eight in a row repeat the proof.",
        lambda r: one(r.unproven_syncs),
    ),
    Metric(
        "seele_tokens_total",
        "tokens",
        "Tokens by kind (prompt, hint, generated; trained: in forward passes; loss: before identical rollouts are merged).",
        lambda r: dict(r.tokens),
        "kind",
    ),
    Metric("seele_rollouts_total", "rollouts", "Rollouts sampled.", lambda r: one(r.rollouts)),
    Metric(
        "seele_rollout_requests_total",
        "requests",
        "Requests to rollout servers by outcome (ok, retried, failed).",
        lambda r: {"ok": 0, "retried": 0, "failed": 0, **r.rollout_requests},
        "outcome",
    ),
    Metric(
        "seele_verifier_timeouts_total",
        "checks",
        "Checks of an answer that timed out.",
        lambda r: one(r.verifier_timeouts),
    ),
)

TIME_METRICS: tuple[Metric[StepRecord], ...] = (
    Metric(
        "seele_phase_time_seconds_total",
        "seconds",
        "Wall-clock seconds of all steps by phase, for rates if steps are shorter than a scrape interval.",
        _phases,
        "phase",
    ),
)
"""Totals of STEP_METRICS. Trackers, which miss no step, do not need them."""

EVALUATION_METRICS: tuple[Metric[EvaluationRecord], ...] = (
    Metric(
        "seele_eval_accuracy",
        SHARE,
        "Greedy accuracy without hints in the last evaluation, by benchmark.",
        _evaluated,
        "benchmark",
    ),
    Metric(
        "seele_eval_sampled_accuracy",
        SHARE,
        "Mean accuracy of sampled answers without hints (avg@k) in the last evaluation, by benchmark.",
        _sampled,
        "benchmark",
    ),
    Metric("seele_eval_seconds", "seconds", "Duration of the last evaluation.", lambda r: one(r.seconds)),
)

MOMENT_METRICS: tuple[Metric[Moment], ...] = (
    Metric("seele_attempt", "attempts", "Number of the current attempt, from 1.", lambda m: one(m.attempt)),
    Metric(
        "seele_checkpoint_step",
        "steps",
        "Step of the latest checkpoint; 0 before the first.",
        lambda m: one(m.checkpoint_step),
    ),
    Metric(
        "seele_last_progress_timestamp_seconds",
        "seconds since the epoch",
        "When this trainer last finished a step, an evaluation or a checkpoint; before the first, when it started.",
        lambda m: one(m.progress_time),
    ),
    Metric(
        "seele_rollout_servers",
        "servers",
        "Rollout servers by state (starting: not yet used, ready, down).",
        _servers,
        "state",
    ),
)
