"""Problems, completions, an engine and a verifier for tests without models and tokenizers."""

from collections.abc import Sequence
from pathlib import Path

from seele_trainer.data.problem import Problem, TokenizedProblem
from seele_trainer.rollout.protocol import Canary, RequestCounts, WeightSync

RIGHT, WRONG = (7, 1), (8, 1)
"""Tokens of a right and of a wrong completion."""


def problem(number: int) -> TokenizedProblem:
    """A problem whose prompt is the token 100 + `number`."""
    question = Problem(str(number), "q", "s", "right")
    return TokenizedProblem(question, (100 + number,), tuple(range(10, 20)), revealable=8, step_ends=(4, 8))


def decode(tokens: Sequence[int]) -> str:
    return "right" if tuple(tokens) == RIGHT else "wrong"


class IdleEngine:
    """The part of an engine that generates nothing."""

    def __init__(self) -> None:
        self.counts = RequestCounts()

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        return WeightSync(version, 0.0, 0.0, 1)


class TextVerifier:
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self, items: Sequence[tuple[str, str]]) -> list[bool | None]:
        return [text == expected for text, expected in items]
