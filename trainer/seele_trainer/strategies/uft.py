"""UFT (arXiv 2505.16984): GRPO with hints of random length that a cosine schedule removes, learned by cross-entropy."""

import math
from collections.abc import Sequence

import numpy as np

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.rollout.protocol import derive_seed
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy


class Uft(Strategy):
    """The solution in K slices, of which a problem's rollouts see Binomial(K, p(t)) at step t."""

    def probability(self) -> float:
        """p(t) = low + (high - low)/2 (1 + cos(pi t / T_hint)) for t up to T_hint, 0 afterwards; t counts from 0."""
        uft = self.config.training.uft
        done = self.progress / uft.hint_share
        if done > 1.0:
            return 0.0
        low, high = uft.last_probability, uft.first_probability
        return low + 0.5 * (high - low) * (1.0 + math.cos(math.pi * done))

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round after the slices drawn for this problem and step."""
        if done:
            return None
        ends = slice_ends(problem, self.config.training.uft.slices)
        seed = derive_seed(self.config.training.seed, self.step, f"uft/{problem.problem.id}", 0)
        shown = np.random.default_rng(seed).binomial(len(ends) - 1, self.probability())
        return RoundPlan(round=1, hint_length=ends[shown], rollouts=self.total)


def slice_ends(problem: TokenizedProblem, slices: int) -> tuple[int, ...]:
    """Token offsets of the ends of K = min(slices, steps) slices of whole steps, after a 0 for no slice.

    The final answer is in none of them, because `step_ends` stops before it.
    """
    steps = (0, *problem.step_ends)
    count = min(slices, len(problem.step_ends))
    return (0, *(steps[round(index * len(problem.step_ends) / count)] for index in range(1, count + 1)))
