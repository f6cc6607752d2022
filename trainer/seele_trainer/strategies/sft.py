"""Supervised fine-tuning: cross-entropy on the reference solutions, including the final answer, and no rollouts."""

from collections.abc import Sequence

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy, solution_sample


class Sft(Strategy):
    """The solution of each problem of a step is trained on once, at coefficient 1: gamma is for hints."""

    rounds = 0

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """Nothing to sample."""
        return None

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """The whole solution after the prompt, with masked-mean cross-entropy."""
        return [solution_sample(problem)]
