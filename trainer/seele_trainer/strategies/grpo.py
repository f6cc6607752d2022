"""GRPO with Dr.GRPO advantages: plain prompts, one baseline per problem, no hints. SEELE is measured against it."""

from __future__ import annotations

from collections.abc import Sequence

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.strategies.advantages import policy_sample, with_advantages
from seele_trainer.strategies.base import Rollout, RoundPlan, WithoutController


class Grpo(WithoutController):
    """All rollouts of a problem in one round."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round without a hint."""
        return None if done else RoundPlan(round=1, hint_length=0, rollouts=self.total)

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Advantage on every generated token."""
        return [policy_sample(*pair) for pair in with_advantages(self.baseline_groups(rollouts))]
