"""Computes a StepRecord from one step's rollouts and updates, without clocks or files.

It also computes what the updates gained on some of the step's baseline groups, from the log-probabilities of their
rollouts before and after.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seele_trainer.collect import Collected
from seele_trainer.config import TrainerConfig
from seele_trainer.hints.controller import ControllerSummary
from seele_trainer.learner.learner import UpdateStats
from seele_trainer.learner.sample import FloatArray, Sample
from seele_trainer.rollout.protocol import WeightSync
from seele_trainer.run_folder.records import (
    Descent,
    IrtParameters,
    Losses,
    SampleRollout,
    StepPhase,
    StepRecord,
    Tokens,
)
from seele_trainer.strategies.base import Rollout, Strategy, policy_sample, rewards, with_advantages
from seele_trainer.telemetry.metric import hint_rate_histogram


@dataclass(frozen=True)
class StepFacts:
    """What the loop observed in one step, apart from the rollouts."""

    step: int
    time: float
    updates: Sequence[UpdateStats]
    sync: WeightSync
    hint_summary: ControllerSummary | None
    requests: dict[str, int]
    phase_seconds: dict[StepPhase, float]
    step_seconds: float
    descents: tuple[Descent, ...] = ()


def summarise(config: TrainerConfig, strategy: Strategy, collected: Collected, facts: StepFacts) -> StepRecord:
    """The step's line of metrics.jsonl."""
    flat = [rollout for rollouts in collected.rollouts for rollout in rollouts]
    verified = [rollout for rollout in flat if rollout.reward is not None]
    groups = [group for rollouts in collected.rollouts for group in strategy.baseline_groups(rollouts)]
    accuracies = np.array([rewards(group).mean() for group in groups])
    rates = np.array([rollout.rate for rollout in flat])
    summary, last = facts.hint_summary, facts.updates[-1]
    return StepRecord(
        step=facts.step,
        time=facts.time,
        policy_version=facts.sync.version,
        reward=_mean(rewards(verified)),
        accuracy_by_round=_by_round(strategy.rounds, verified, lambda rollout: float(rollout.reward or 0.0)),
        hint_rate=_mean(rates),
        hint_rate_by_round=_by_round(strategy.rounds, flat, lambda rollout: rollout.rate),
        hint_rate_histogram=hint_rate_histogram(rates),
        target_accuracy=config.hints.target_accuracy,
        unhinted_accuracy=_mean(rewards([probe for probe in collected.probes if probe.reward is not None])),
        learning_efficiency=_mean(4 * accuracies * (1 - accuracies)),
        zero_gradient_groups=_mean((accuracies == 0) | (accuracies == 1)),
        losses=Losses(
            policy=_over_updates(facts.updates, lambda update: update.policy_loss),
            supervised=_over_updates(facts.updates, lambda update: update.supervised_loss),
            kl=_over_updates(facts.updates, lambda update: update.kl_loss),
            total=_over_updates(facts.updates, lambda update: update.total_loss),
        ),
        gradient_norm=_over_updates(facts.updates, lambda update: update.gradient_norm),
        clip_fraction=_over_updates(facts.updates, lambda update: update.clip_fraction),
        learning_rate=last.learning_rate,
        # Only the first update of a step starts from the policy that sampled.
        mismatch_kl=facts.updates[0].mismatch_kl,
        truncated_completions=_mean(np.array([rollout.completion.finish_reason == "length" for rollout in flat])),
        tokens=Tokens(
            prompt=sum(len(rollout.problem.prompt) for rollout in flat),
            hint=sum(rollout.hint_length for rollout in flat),
            generated=sum(len(rollout.completion.tokens) for rollout in flat),
            trained=sum(update.tokens_trained for update in facts.updates),
            loss=sum(update.tokens_in_loss for update in facts.updates),
        ),
        rollouts=len(flat),
        verifier_timeouts=len(flat) - len(verified),
        descents=facts.descents,
        irt=_irt(summary),
        irt_fit_seconds=summary.fit_seconds if summary else 0.0,
        irt_fit_fallbacks=summary.fallbacks if summary else 0,
        weight_sync_seconds=facts.sync.seconds,
        canary_difference=facts.sync.canary_difference,
        unproven_syncs=facts.sync.unproven,
        rollout_requests=facts.requests,
        phase_seconds=facts.phase_seconds,
        step_seconds=facts.step_seconds,
    )


def sample_rollouts(
    collected: Collected, step: int, count: int, decode: Callable[[Sequence[int]], str]
) -> list[SampleRollout]:
    """A few rollouts as text: one of the last round, where the hint has settled, for each of the first problems."""
    chosen = [rollouts[-1] for rollouts in collected.rollouts[:count] if rollouts]
    return [
        SampleRollout(
            step=step,
            problem_id=rollout.problem.problem.id,
            round=rollout.round,
            rate=rollout.rate,
            prompt=decode(rollout.problem.prompt),
            hint=decode(rollout.problem.hint(rollout.hint_length)),
            completion=decode(rollout.completion.tokens),
            reward=rollout.reward,
        )
        for rollout in chosen
    ]


def _irt(summary: ControllerSummary | None) -> IrtParameters | None:
    if summary is None:
        return None
    return IrtParameters(discrimination=summary.discrimination, ability=summary.ability, guessing=summary.guessing)


def _mean(values: np.ndarray) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _over_updates(updates: Sequence[UpdateStats], value: Callable[[UpdateStats], float]) -> float:
    return float(np.mean([value(update) for update in updates]))


def _by_round(rounds: int, rollouts: Sequence[Rollout], value: Callable[[Rollout], float]) -> tuple[float | None, ...]:
    """Mean of a value over the rollouts of each round from 1 on."""
    return tuple(
        _mean(np.array([value(rollout) for rollout in rollouts if rollout.round == index]))
        for index in range(1, rounds + 1)
    )


MAX_GROUPS = 64
"""Groups to measure: limits two forward passes and the length of the record if a step has hundreds of problems."""


@dataclass(frozen=True)
class MeasuredGroup:
    """A baseline group whose rollouts are scored before and after a step's updates."""

    accuracy: float
    samples: tuple[Sample, ...]


def measured_groups(groups: Iterable[Sequence[Rollout]]) -> list[MeasuredGroup]:
    """The first `MAX_GROUPS` groups that have advantages."""
    found: list[MeasuredGroup] = []
    for group in groups:
        accuracy = float(rewards(group).mean())
        if len(found) < MAX_GROUPS and 0.0 < accuracy < 1.0:
            found.append(MeasuredGroup(accuracy, tuple(policy_sample(*pair) for pair in with_advantages([group]))))
    return found


def sequences(measured: Sequence[MeasuredGroup]) -> list[list[int]]:
    """The sequences to score: the tokens of every rollout, group by group."""
    return [sample.tokens.tolist() for group in measured for sample in group.samples]


def descents(
    measured: Sequence[MeasuredGroup], before: Sequence[FloatArray], after: Sequence[FloatArray]
) -> tuple[Descent, ...]:
    """Descent of every group, from the log-probabilities of `sequences` before and after the updates.

    Each array is one element shorter than its sequence: element t belongs to token t + 1.
    """
    pairs = iter(zip(before, after, strict=True))
    return tuple(
        Descent(
            accuracy=group.accuracy,
            descent=float(np.mean([_gain(sample, *next(pairs)) for sample in group.samples])),
        )
        for group in measured
    )


def _gain(sample: Sample, before: FloatArray, after: FloatArray) -> float:
    # In double precision: the differences are small compared with the log-probabilities.
    return float(sample.advantage[1:].astype(np.float64) @ (after.astype(np.float64) - before.astype(np.float64)))
