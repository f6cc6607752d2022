"""From rewards to weighted sequences, as strategies share it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.strategies.base import Rollout


def rewards(group: Sequence[Rollout]) -> NDArray[np.float64]:
    """Rewards of verified rollouts, shape (rollouts,)."""
    return np.array([rollout.reward for rollout in group], dtype=np.float64)


def dr_grpo_advantages(group: Sequence[Rollout]) -> NDArray[np.float64]:
    """Reward minus the group's mean, not divided by its deviation (Dr.GRPO, arXiv 2503.20783); shape (rollouts,)."""
    earned = rewards(group)
    return earned - np.float64(earned.mean())


def with_advantages(groups: Iterable[Sequence[Rollout]]) -> Iterator[tuple[Rollout, float]]:
    """Every rollout of the groups, with its advantage."""
    for group in groups:
        yield from zip(group, dr_grpo_advantages(group).tolist(), strict=True)


def policy_sample(rollout: Rollout, advantage: float) -> Sample:
    """The training sequence of a rollout: prompt, hint, completion.

    Generated tokens get the advantage. Hint tokens never do: a failed completion would punish a correct hint.
    """
    problem, completion = rollout.problem, rollout.completion
    generated_start = len(problem.prompt) + rollout.hint_length
    tokens = np.array([*problem.prompt, *problem.hint(rollout.hint_length), *completion.tokens], dtype=np.int64)
    policy_mask = np.arange(len(tokens)) >= generated_start
    behaviour = np.zeros(len(tokens), dtype=np.float32)
    behaviour[generated_start:] = completion.logprobs
    return Sample(
        tokens=tokens,
        policy_mask=policy_mask,
        advantage=np.where(policy_mask, np.float32(advantage), np.float32(0.0)),
        behaviour_logprobs=behaviour,
    )


def hint_span(rollout: Rollout) -> slice:
    """Position of the hint in the training sequence of a rollout."""
    start = len(rollout.problem.prompt)
    return slice(start, start + rollout.hint_length)


def hinted_samples(groups: Iterable[Sequence[Rollout]], config: TrainerConfig) -> list[Sample]:
    """Groups of rollouts with Dr.GRPO advantages and cross-entropy on hint tokens (Eq. 47 of arXiv 2509.06923).

    `hints.supervision` selects the hint tokens, each with weight `training.hintLossCoefficient`.
    """
    return [
        _supervise_hint(policy_sample(rollout, advantage), rollout, advantage, config)
        for rollout, advantage in with_advantages(groups)
    ]


def _supervise_hint(sample: Sample, rollout: Rollout, advantage: float, config: TrainerConfig) -> Sample:
    hints = config.hints
    if hints.supervision == "none" or (hints.supervision == "not-below-baseline" and advantage < 0):
        return sample
    supervised = sample.supervised.copy()
    supervised[hint_span(rollout)] = config.training.hint_loss_coefficient
    if hints.supervision == "high-entropy" and rollout.hint_length > 0:
        sample = replace(sample, most_uncertain=share_of(hints.high_entropy_share, rollout.hint_length))
    return replace(sample, supervised=supervised)


def share_of(share: float, tokens: int) -> int:
    """A share of a number of tokens, rounded up so that at least one token of a short hint learns."""
    return math.ceil(round(share * tokens, 9))


def solution_sample(problem: TokenizedProblem) -> Sample:
    """Prompt and whole reference solution, including the end-of-sequence token, with cross-entropy of weight 1."""
    tokens = np.array([*problem.prompt, *problem.solution], dtype=np.int64)
    return Sample(tokens=tokens, supervised=(np.arange(len(tokens)) >= len(problem.prompt)).astype(np.float32))
