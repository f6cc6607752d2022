"""SEELE: every round of a problem gets a hint just long enough that half of its rollouts succeed (arXiv 2509.06923)."""

from collections.abc import Hashable, Sequence
from typing import Any

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary, HintController
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy, group_by, rewards

UNHINTED = 0
"""Round number of the rollouts that `hints.unhintedShare` reserves; hinted rounds count from 1."""


class Seele(Strategy):
    """Consecutive rounds, each with the hint that the controller expects to reach the target accuracy."""

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__(config)
        hints = config.hints
        self.rounds = hints.rounds
        self._unhinted = round(hints.unhinted_share * self.total)
        base, extra = divmod(self.total - self._unhinted, hints.rounds)
        # The unhinted group takes its rollouts evenly from all rounds; the first rounds keep the remainder.
        self._rollouts = [base + (index < extra) for index in range(hints.rounds)]
        self._controller = HintController(
            hints.target_accuracy, hints.rounds, hints.rollouts_per_round, estimator=hints.estimator
        )

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """The unhinted group first, if there is one; then rounds, each at the rate that the earlier ones suggest."""
        last = done[-1].round if done else (UNHINTED - 1 if self._unhinted else UNHINTED)
        if last < UNHINTED:
            return RoundPlan(round=UNHINTED, hint_length=0, rollouts=self._unhinted)
        if last == len(self._rollouts):
            return None
        rate = self._controller.propose(problem.problem.id)
        length = problem.hint_length(rate, self.config.hints.unit)
        return RoundPlan(round=last + 1, hint_length=length, rollouts=self._rollouts[last])

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Give the controller the accuracy at the rate actually shown; unverified rollouts count as not sampled."""
        if verified := [rollout for rollout in rollouts if rollout.reward is not None]:
            self._controller.observe(problem.problem.id, *_outcome(verified))

    async def observe_beside(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """As `observe`, while the event loop continues."""
        if verified := [rollout for rollout in rollouts if rollout.reward is not None]:
            await self._controller.observe_beside(problem.problem.id, *_outcome(verified))

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """All hinted rollouts of the problem, as in the paper, or each round; unhinted ones are always separate."""
        by_round = self.config.training.advantage_group == "round"

        def key(rollout: Rollout) -> Hashable:
            return rollout.round if by_round else rollout.round == UNHINTED

        return group_by(rollouts, key)

    def hint_summary(self) -> ControllerSummary | None:
        """The controller's curves of this step's problems."""
        return self._controller.summary()

    def end_step(self) -> None:
        """End the controller's step."""
        self._controller.end_step()

    def state_dict(self) -> dict[str, Any]:
        """The controller's state."""
        return self._controller.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the controller."""
        self._controller.load_state_dict(state)


def _outcome(verified: Sequence[Rollout]) -> tuple[float, int, int]:
    """The rate of a round, and how many of its rollouts succeeded."""
    return verified[0].rate, round(float(rewards(verified).sum())), len(verified)
