"""What methods without a hint controller share: what they do follows from the configuration and the step alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary, HintStateError
from seele_trainer.strategies.advantages import group_by
from seele_trainer.strategies.base import Rollout


class WithoutController:
    """Base of such methods: one round, all rollouts of a problem in one group, no state.

    A problem gets as many rollouts (`total`) as SEELE gives it in all of its rounds.
    """

    rounds = 1

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config
        self.total = config.hints.rounds * config.hints.rollouts_per_round
        self.step = 1

    @property
    def progress(self) -> float:
        """Share of the steps that are behind, in [0, 1): 0 at the first step."""
        return (self.step - 1) / self.config.training.steps

    def begin_step(self, step: int) -> None:
        """Schedules and draws follow from the step."""
        self.step = step

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Learn nothing."""

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """All rollouts of the problem."""
        return group_by(rollouts, lambda rollout: 0)

    def hint_summary(self) -> ControllerSummary | None:
        """No controller, no summary."""
        return None

    def end_step(self) -> None:
        """Nothing to close."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore. Raises HintStateError for the state of a method that has one."""
        if state:
            raise HintStateError(
                f"the saved state is that of another strategy than {self.config.training.strategy}: resume with the "
                "same strategy, or start a new run"
            )
