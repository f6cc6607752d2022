"""LUFFY (arXiv 2504.14945): one of N rollouts is the reference solution itself, an off-policy member of the group."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.rollout.protocol import Completion
from seele_trainer.strategies.base import (
    Rollout,
    RoundPlan,
    Strategy,
    group_by,
    policy_sample,
    with_advantages,
)

REFERENCE = 0
"""Round number of the reference solution, which was not sampled."""


class Luffy(Strategy):
    """N - 1 plain rollouts and the solution share a baseline; the solution's tokens have weight w / (w + c).

    As in the released code, nothing is clipped: generated tokens have their plain ratio.
    """

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round without a hint and with one rollout fewer, which the solution replaces."""
        return None if done else RoundPlan(round=1, hint_length=0, rollouts=self.total - 1)

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """All rollouts and the solution."""
        groups = group_by(rollouts, lambda rollout: 0)
        return [[reference_rollout(group[0].problem), *group] for group in groups]

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Dr.GRPO advantages over all N; generated tokens as in GRPO, the solution's tokens off-policy."""
        samples = []
        for rollout, advantage in with_advantages(self.baseline_groups(rollouts)):
            sample = replace(policy_sample(rollout, advantage), clipped=False)
            if rollout.round == REFERENCE:
                nothing, shaping = np.zeros_like(sample.policy_mask), self.config.training.luffy.shaping
                sample = replace(sample, policy_mask=nothing, off_policy=sample.policy_mask, shaping=shaping)
            samples.append(sample)
        return samples


def reference_rollout(problem: TokenizedProblem) -> Rollout:
    """The solution as if it had been sampled with probability 1. It counts as correct without verification."""
    completion = Completion(problem.solution, (0.0,) * len(problem.solution), "stop", 0)
    return Rollout(problem, REFERENCE, hint_length=0, rate=0.0, completion=completion, reward=1.0)
