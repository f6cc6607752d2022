"""A constant hint rate for all problems: SEELE without its controller, to measure what that contributes."""

from collections.abc import Sequence

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy


class FixedHint(Strategy):
    """All rollouts of a problem in one round, after the first `training.fixedHint.rate` of its solution."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round at the constant rate."""
        if done:
            return None
        length = problem.hint_length(self.config.training.fixed_hint.rate, self.config.hints.unit)
        return RoundPlan(round=1, hint_length=length, rollouts=self.total)
