"""A problem with its reference solution, as text and as tokens."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from seele_trainer.termination import RefusedInput


@dataclass(frozen=True)
class Problem:
    """A problem as its data set gives it. `solution` is the text of `steps` as it stood, separators included."""

    id: str
    question: str
    solution: str
    answer: str


@dataclass(frozen=True)
class TokenizedProblem:
    """A problem tokenised once: hints are cut from `solution` in token space, never from text.

    `prompt` is the templated question. `revealable` is how many leading tokens of `solution` a hint may show: everything
    from the final answer on is out of reach of any rate. `step_ends` are ascending token offsets, each in [1, revealable],
    where a step of the solution ends.
    """

    problem: Problem
    prompt: tuple[int, ...]
    solution: tuple[int, ...]
    revealable: int
    step_ends: tuple[int, ...]

    def hint_length(self, rate: float, unit: Literal["token", "step"]) -> int:
        """Tokens to show at a hinting rate in [0, 1]: `round(rate * revealable)`, or the nearest whole number of steps."""
        if unit == "token":
            return round(rate * self.revealable)
        ends = (0, *self.step_ends)
        return ends[round(rate * (len(ends) - 1))]

    def rate_of(self, hint_length: int, unit: Literal["token", "step"]) -> float:
        """The rate in [0, 1] that a hint of this many tokens really has, in the given unit; 0 where nothing can be shown."""
        if unit == "token":
            return hint_length / self.revealable if self.revealable else 0.0
        return bisect_right(self.step_ends, hint_length) / len(self.step_ends) if self.step_ends else 0.0

    def hint(self, hint_length: int) -> tuple[int, ...]:
        """The first `hint_length` tokens of the solution. Raises ValueError beyond `revealable`."""
        if not 0 <= hint_length <= self.revealable:
            raise ValueError(
                f"hint of {hint_length} tokens for problem {self.problem.id}, which may show {self.revealable}"
            )
        return self.solution[:hint_length]


class BadDataError(RefusedInput):
    """A data set cannot be used as it is. The message names the file, the row, the field and the remedy."""


class BadTokenizerError(BadDataError):
    """A tokenizer lacks something that hints or prompts are made with."""
