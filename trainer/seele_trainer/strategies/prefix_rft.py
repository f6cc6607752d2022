"""Prefix-RFT (arXiv 2507.01679): one of N rollouts continues a prefix of the solution, which shares its advantage."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.rollout.protocol import derive_seed
from seele_trainer.strategies.base import (
    Rollout,
    RoundPlan,
    Strategy,
    group_by,
    hint_span,
    policy_sample,
    rewards,
    share_of,
    with_advantages,
)

PLAIN, HYBRID = 1, 2
"""Numbers of the two rounds: N - 1 plain rollouts, then the one with a prefix."""


class PrefixRft(Strategy):
    """N - 1 plain rollouts with their own baseline, and a hybrid one that is compared with them."""

    rounds = 2

    def lower_bound(self) -> float:
        """Lower bound of the prefix's share, which falls along a cosine over the run."""
        options = self.config.training.prefix_rft
        falling = 0.5 * (1.0 + math.cos(math.pi * self.progress))
        return options.last_lower_bound + (options.first_lower_bound - options.last_lower_bound) * falling

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """The plain rollouts, then the hybrid one after floor(l |y|) tokens, l ~ U(lower bound, longest)."""
        if not done:
            return RoundPlan(round=PLAIN, hint_length=0, rollouts=self.total - 1)
        if done[-1].round == HYBRID:
            return None
        seed = derive_seed(self.config.training.seed, self.step, f"prefix_rft/{problem.problem.id}", 0)
        longest = self.config.training.prefix_rft.longest_prefix
        share = np.random.default_rng(seed).uniform(min(self.lower_bound(), longest), longest)
        length = problem.whole_characters(math.floor(share * problem.revealable))
        return RoundPlan(round=HYBRID, hint_length=length, rollouts=1)

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """The plain rollouts; their mean is also the baseline of the hybrid one."""
        return group_by([rollout for rollout in rollouts if rollout.round == PLAIN], lambda rollout: 0)

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Dr.GRPO on plain rollouts; the hybrid one's advantage on its completion and its prefix's uncertain tokens."""
        samples = []
        for plain in self.baseline_groups(rollouts):
            samples += [policy_sample(*pair) for pair in with_advantages([plain])]
            # The prefix learns from the completion's reward, so neither is trained on if that is masked.
            hybrids = [r for r in rollouts if r.round == HYBRID and r.reward is not None and not r.masked]
            against = rewards(hybrids) - rewards(plain).mean()
            samples += [self._hybrid(*pair) for pair in zip(hybrids, against, strict=True)]
        return samples

    def _hybrid(self, rollout: Rollout, advantage: float) -> Sample:
        sample = policy_sample(rollout, advantage)
        off_policy, weights = sample.off_policy.copy(), sample.advantage.copy()
        off_policy[hint_span(rollout)] = True
        weights[hint_span(rollout)] = advantage
        learnt = share_of(self.config.training.prefix_rft.entropy_share, rollout.hint_length)
        return replace(sample, off_policy=off_policy, advantage=weights, most_uncertain=learnt)
