"""The interface of a training method: which prefix each rollout gets, and what each of its tokens weighs in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary
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
    """A completion that was checked: what was shown, what came back, what it earned.

    `reward` is None where the verifier failed (a timeout): such a rollout counts in no mean and trains nothing.
    `rate` is the share of the revealable solution that was really shown, in [0, 1].
    """

    problem: TokenizedProblem
    round: int
    hint_length: int
    rate: float
    completion: Completion
    reward: float | None


class Strategy(Protocol):
    """One training method. A strategy owns its state; calls for one problem come in order, problems interleave.

    `rounds` is how many rounds with a number from 1 on a problem gets in a step; 0 for a method without rollouts.
    """

    rounds: int

    def begin_step(self, step: int) -> None:
        """Open training step `step`, counted from 1. Whatever is drawn at random must follow from it, the run's seed and
        the problem, so that a step that is made again after a restart is the same."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """What to sample next for a problem, given its rollouts of this step so far; None when it has had enough."""

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Learn from the checked rollouts of one round."""

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Split one problem's rollouts of this step into the groups whose mean reward is their baseline."""

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """What a problem trains in this step: its rollouts, its solution, or both, weighed for the loss."""

    def hint_summary(self) -> ControllerSummary | None:
        """What the hint controller fitted in this step; None for a method without one. Asked before `end_step`."""

    def end_step(self) -> None:
        """Close a training step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state for an exact resume."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
