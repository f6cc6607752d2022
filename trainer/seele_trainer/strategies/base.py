"""The interface of a training method: the prefix of each rollout, and the weight of each of its tokens in the loss."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary, HintStateError
from seele_trainer.learner.sample import Sample
from seele_trainer.rollout.protocol import Completion


@dataclass(frozen=True)
class RoundPlan:
    """The next rollouts of one problem: `rollouts` completions after the first `hint_length` tokens of the solution."""

    round: int
    hint_length: int
    rollouts: int


@dataclass(frozen=True)
class Rollout:
    """A verified completion: what was shown, what was sampled, and its reward.

    `reward` is None if the verifier failed, such as on a timeout: the rollout counts in no mean and is not trained on.
    `rate` is the share of the revealable solution that was actually shown, in [0, 1].
    """

    problem: TokenizedProblem
    round: int
    hint_length: int
    rate: float
    completion: Completion
    reward: float | None


class Strategy(Protocol):
    """One training method. Calls for one problem come in order; calls for different problems interleave.

    `rounds` is the number of rounds that a problem gets in a step, numbered from 1; 0 for a method without rollouts.
    """

    rounds: int

    def begin_step(self, step: int) -> None:
        """Begin training step `step`, counted from 1. All randomness must follow from the step, the run's seed and the
        problem, so that a step repeated after a restart is the same."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """What to sample next for a problem, given its rollouts in this step; None if its step is complete."""

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Learn from the verified rollouts of one round."""

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Split one problem's rollouts into the groups whose mean reward is their baseline."""

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """What is trained on for a problem in this step: its rollouts, its solution, or both, weighted for the loss."""

    def hint_summary(self) -> ControllerSummary | None:
        """What the hint controller fitted in this step; None for a method without one. Called before `end_step`."""

    def end_step(self) -> None:
        """End a training step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state for an exact resume."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""


def group_by(rollouts: Sequence[Rollout], key: Callable[[Rollout], Hashable]) -> list[list[Rollout]]:
    """Split rollouts by key, keeping order. Rollouts that could not be verified are omitted."""
    groups: dict[Hashable, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.reward is not None:
            groups[key(rollout)].append(rollout)
    return list(groups.values())


class WithoutController:
    """Base of methods without a hint controller: one round, all rollouts of a problem in one group, no state.

    What they do follows from the configuration and the step alone. A problem gets as many rollouts (`total`) as SEELE
    gives it in all of its rounds.
    """

    rounds = 1

    def __init__(self, config: TrainerConfig) -> None:
        self.config = config
        self.total = config.hints.rounds * config.hints.rollouts_per_round
        self.step = 1

    @property
    def progress(self) -> float:
        """Share of the steps before this one, in [0, 1)."""
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
        """Nothing to restore. Raises HintStateError for the state of a method with a controller."""
        if state:
            raise HintStateError(
                f"the saved state belongs to a strategy other than {self.config.training.strategy}: resume with the "
                "same strategy, or start a new run"
            )
