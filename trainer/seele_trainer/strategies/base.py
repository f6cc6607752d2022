"""The base of training methods, and what they share: rollouts, baselines and samples.

A method decides the prefix of each rollout, and the weight of each of its tokens in the loss.
"""

import math
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    A `masked` one counts in every mean, but its completion is not trained on (`rewards.truncated: mask`).
    `rate` is the share of the revealable solution that was actually shown, in [0, 1].
    """

    problem: TokenizedProblem
    round: int
    hint_length: int
    rate: float
    completion: Completion
    reward: float | None
    masked: bool = False


class Strategy(ABC):
    """A training method. By default one round, all rollouts of a problem in one group, hints as in SEELE, no state.

    Calls for one problem come in order; calls for different problems interleave. All randomness must follow from the
    step, the run's seed and the problem, so that a step repeated after a restart is the same. `rounds` is the number of
    rounds that a problem gets in a step, numbered from 1; 0 for a method without rollouts. `total` is the number of
    rollouts that SEELE gives a problem in all of its rounds.
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
        """Begin training step `step`, counted from 1."""
        self.step = step

    @abstractmethod
    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """What to sample next for a problem, given its rollouts in this step; None if its step is complete."""

    def observe(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:  # noqa: B027
        """Learn from the verified rollouts of one round."""

    async def observe_beside(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> None:
        """As `observe`, without holding up the event loop if it computes for long."""
        self.observe(problem, rollouts)

    def baseline_groups(self, rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
        """Split one problem's rollouts into the groups whose mean reward is their baseline."""
        return group_by(rollouts, lambda rollout: 0)

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """What is trained on for a problem in this step: its rollouts, its solution, or both, weighted for the loss.

        By default advantages on generated tokens and cross-entropy on hint tokens (Eq. 47 of arXiv 2509.06923).
        """
        return [
            self._supervise_hint(policy_sample(rollout, advantage), rollout, advantage)
            for rollout, advantage in with_advantages(self.baseline_groups(rollouts))
        ]

    def hint_summary(self) -> ControllerSummary | None:
        """What the hint controller fitted in this step; None for a method without one. Called before `end_step`."""
        return None

    def end_step(self) -> None:  # noqa: B027
        """End a training step."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state for an exact resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Raises HintStateError for the state of another method."""
        if state:
            raise HintStateError(
                f"the saved state belongs to a strategy other than {self.config.training.strategy}: resume with the "
                "same strategy, or start a new run"
            )

    def _supervise_hint(self, sample: Sample, rollout: Rollout, advantage: float) -> Sample:
        hints = self.config.hints
        if hints.supervision == "none" or (hints.supervision == "not-below-baseline" and advantage < 0):
            return sample
        supervised = sample.supervised.copy()
        supervised[hint_span(rollout)] = self.config.training.hint_loss_coefficient
        if hints.supervision == "high-entropy" and rollout.hint_length > 0:
            sample = replace(sample, most_uncertain=share_of(hints.high_entropy_share, rollout.hint_length))
        return replace(sample, supervised=supervised)


def group_by(rollouts: Sequence[Rollout], key: Callable[[Rollout], Hashable]) -> list[list[Rollout]]:
    """Split rollouts by key, keeping order. Rollouts that could not be verified are omitted."""
    groups: dict[Hashable, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.reward is not None:
            groups[key(rollout)].append(rollout)
    return list(groups.values())


def rewards(group: Sequence[Rollout]) -> NDArray[np.float64]:
    """Rewards of verified rollouts, shape (rollouts,)."""
    return np.array([rollout.reward for rollout in group], dtype=np.float64)


def with_advantages(groups: Iterable[Sequence[Rollout]]) -> Iterator[tuple[Rollout, float]]:
    """Every rollout with its advantage: reward minus its group's mean (Dr.GRPO, arXiv 2503.20783, without division)."""
    for group in groups:
        earned = rewards(group)
        yield from zip(group, (earned - np.float64(earned.mean())).tolist(), strict=True)


def policy_sample(rollout: Rollout, advantage: float) -> Sample:
    """The training sequence of a rollout: prompt, hint, completion.

    Generated tokens get the advantage. Hint tokens never do: a failed completion would punish a correct hint. The
    completion of a masked rollout is left out.
    """
    problem, completion = rollout.problem, rollout.completion
    generated, logprobs = ((), ()) if rollout.masked else (completion.tokens, completion.logprobs)
    generated_start = len(problem.prompt) + rollout.hint_length
    tokens = np.array([*problem.prompt, *problem.hint(rollout.hint_length), *generated], dtype=np.int64)
    policy_mask = np.arange(len(tokens)) >= generated_start
    behaviour = np.zeros(len(tokens), dtype=np.float32)
    behaviour[generated_start:] = logprobs
    return Sample(
        tokens=tokens,
        policy_mask=policy_mask,
        advantage=np.where(policy_mask, np.float32(advantage), np.float32(0.0)),
        behaviour_logprobs=behaviour,
    )


def hint_span(rollout: Rollout) -> slice:
    """Position of the hint in the training sequence of a rollout."""
    start = len(rollout.problem.prompt)
    return slice(start, start + rollout.hint_length)


def share_of(share: float, tokens: int) -> int:
    """A share of a number of tokens, rounded up so that at least one token of a short hint learns."""
    return math.ceil(round(share * tokens, 9))


def solution_sample(problem: TokenizedProblem) -> Sample:
    """Prompt and whole reference solution, including the end-of-sequence token, with cross-entropy of weight 1."""
    tokens = np.array([*problem.prompt, *problem.solution], dtype=np.int64)
    return Sample(tokens=tokens, supervised=(np.arange(len(tokens)) >= len(problem.prompt)).astype(np.float32))
