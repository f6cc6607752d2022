"""GRPO with Dr.GRPO advantages: plain prompts, one baseline a problem, no hints. The method that SEELE is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary
from seele_trainer.strategies.advantages import dr_grpo_advantages, group_by, policy_sample
from seele_trainer.strategies.base import Rollout, RoundPlan, Sample


class Grpo:
    """All rollouts of a problem in one round, the same number as SEELE gets in all of its rounds."""

    def __init__(self, config: TrainerConfig) -> None:
        self._rollouts = config.hints.rounds * config.hints.rollouts_per_round

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """One round without a hint."""
        return None if done else RoundPlan(round=1, hint_length=0, rollouts=self._rollouts)

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Learn nothing: GRPO has no state."""

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """All rollouts of the problem."""
        return group_by(rollouts, lambda rollout: 0)

    def samples(self, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Advantage on every generated token, nothing on the prompt."""
        return [
            policy_sample(rollout, advantage, supervise_hint=False)
            for group in self.baseline_groups(rollouts)
            for rollout, advantage in zip(group, dr_grpo_advantages(group), strict=True)
        ]

    def hint_summary(self) -> ControllerSummary | None:
        """No controller, no summary."""
        return None

    def end_step(self) -> None:
        """Nothing to close."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to remember."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""
