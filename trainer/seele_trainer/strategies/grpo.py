"""GRPO with Dr.GRPO advantages: plain prompts, one baseline per problem, no hints. SEELE is measured against it."""

from collections.abc import Sequence

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy


class Grpo(Strategy):
    """All rollouts of a problem in one round."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round without a hint."""
        return None if done else RoundPlan(round=1, hint_length=0, rollouts=self.total)
