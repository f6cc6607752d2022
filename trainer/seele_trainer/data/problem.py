"""A problem with its reference solution, as text and as tokens."""

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Literal

from seele_trainer.termination import RefusedInput


@dataclass(frozen=True)
class Problem:
    """A problem from a data set. `solution` is its text, including the separators of its steps."""

    id: str
    question: str
    solution: str
    answer: str


@dataclass(frozen=True)
class TokenizedProblem:
    """A problem tokenised once: hints are cut from `solution` in token space, never from text.

    `prompt` is the templated question. `revealable` is the number of leading tokens of `solution` that a hint may show:
    no rate reaches the final answer. `step_ends` are the ascending token offsets, each in [1, revealable], at which a
    step of the solution ends. `inside_characters` are the token offsets at which no hint ends, because the tokens before
    and after are bytes of one character.
    """

    problem: Problem
    prompt: tuple[int, ...]
    solution: tuple[int, ...]
    revealable: int
    step_ends: tuple[int, ...]
    inside_characters: frozenset[int] = frozenset()

    @property
    def revealable_share(self) -> float | None:
        """Share of the solution's tokens, without the end token, that a hint may show, in [0, 1]; None if it has none."""
        tokens = len(self.solution) - 1
        return self.revealable / tokens if tokens > 0 else None

    def hint_length(self, rate: float, unit: Literal["token", "step"]) -> int:
        """Tokens to show at a hint rate in [0, 1]: `round(rate * revealable)` without a part of a character, or the
        nearest end of a step."""
        if unit == "token":
            return self.whole_characters(round(rate * self.revealable))
        ends = (0, *self.step_ends)
        return ends[round(rate * (len(ends) - 1))]

    def whole_characters(self, hint_length: int) -> int:
        """The longest hint of at most this many tokens that does not end inside a character."""
        while hint_length in self.inside_characters:
            hint_length -= 1
        return hint_length

    def rate_of(self, hint_length: int, unit: Literal["token", "step"]) -> float:
        """The actual rate in [0, 1] of a hint of this many tokens, in the given unit; 0 if nothing can be shown."""
        if unit == "token":
            return hint_length / self.revealable if self.revealable else 0.0
        return bisect_right(self.step_ends, hint_length) / len(self.step_ends) if self.step_ends else 0.0

    def hint(self, hint_length: int) -> tuple[int, ...]:
        """The first `hint_length` tokens of the solution. Raises ValueError beyond `revealable`."""
        if not 0 <= hint_length <= self.revealable:
            raise ValueError(
                f"hint of {hint_length} tokens for problem {self.problem.id}, which may show at most {self.revealable}"
            )
        return self.solution[:hint_length]


class BadDataError(RefusedInput):
    """A data set cannot be used. The message names the file, the row, the field and the remedy."""


class BadTokenizerError(BadDataError):
    """A tokenizer lacks a feature that hints or prompts need."""


SHOWN = 5
"""Bad rows that are named; the others are only counted."""


@dataclass
class BadRows:
    """The first bad row ends the run (`fail`), or all are skipped and counted, and the first few are named (`skip`)."""

    on_bad_row: Literal["fail", "skip"] = "fail"
    count: int = 0
    first: list[BadDataError] = field(default_factory=list)

    def add(self, error: BadDataError) -> None:
        """Count a bad row. Raises the error itself with `fail`."""
        if self.on_bad_row == "fail":
            raise error
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(error)

    def include(self, skipped: "BadRows") -> None:
        """Count rows that were skipped elsewhere."""
        self.count += skipped.count
        self.first += skipped.first[: SHOWN - len(self.first)]

    def __str__(self) -> str:
        if not self.count:
            return "no bad rows"
        more = f"; and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        rows = "1 bad row" if self.count == 1 else f"{self.count} bad rows"
        return f"{rows}: {'; '.join(map(str, self.first))}{more}"
