"""The interface of a training method: which prefix each rollout gets, and what each of its tokens weighs in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import ControllerSummary
from seele_trainer.rollout.protocol import Completion

FloatArray = NDArray[np.float32]


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


@dataclass(frozen=True)
class Sample:
    """One sequence to train on, each array of shape (tokens,).

    `advantage` weighs the policy gradient of a token and is 0 outside `policy_mask`; `policy_mask` marks generated tokens
    (they count in the policy denominator and in the KL term); `supervised` weighs the cross-entropy of a token (hints);
    `behaviour_logprobs` are the sampler's, 0 outside `policy_mask`. `multiplicity` is how many identical rollouts this one
    stands for; it multiplies every term and every denominator.
    """

    tokens: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    advantage: FloatArray
    supervised: FloatArray
    behaviour_logprobs: FloatArray
    multiplicity: float = 1.0


class Strategy(Protocol):
    """One training method. A strategy owns its state; calls for one problem come in order, problems interleave."""

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """What to sample next for a problem, given its rollouts of this step so far; None when it has had enough."""

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """Learn from the checked rollouts of one round."""

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Split one problem's rollouts of this step into the groups whose mean reward is their baseline."""

    def samples(self, rollouts: Sequence[Rollout]) -> list[Sample]:
        """Weigh all rollouts of one problem of this step for the loss."""

    def hint_summary(self) -> ControllerSummary | None:
        """What the hint controller fitted in this step; None for a method without one. Asked before `end_step`."""

    def end_step(self) -> None:
        """Close a training step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state for an exact resume."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
