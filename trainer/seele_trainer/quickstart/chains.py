"""Chains of sums modulo 100: problems that a small model can solve in principle and almost never does by its habit.

A problem is a start value and labelled operations, `37 a+5 b-8 c+4`; its solution writes each intermediate value on a
line of its own, `a=42`, `b=34`, `c=38`, and then the answer, `#### 38`. The base model is trained on text in which each
step is right with probability `RIGHT_STEP` and otherwise one too high, and carries on from there. So it has seen the rule
everywhere, yet completes a chain of eight operations once in a hundred million samples and never by greedy decoding: the
situation of a pretrained model whose skill is latent, on problems that it fails every time.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seele_trainer.data.problem import Problem

MODULUS = 100
RIGHT_STEP = 0.1
"""Probability that a step of the base model's training text is right."""
LONGEST = 8
"""Operations of the longest chains. The base model is trained on all chains up to them; the problems for reinforcement
learning and the held-out problems have as many, or one less."""
OPERANDS = (2, 9)
LABELS = string.ascii_lowercase


@dataclass(frozen=True)
class Chain:
    """A start value in [0, 100) and signed operands."""

    start: int
    operands: tuple[int, ...]

    @property
    def question(self) -> str:
        """The problem's text, such as `37 a+5 b-8`."""
        return f"{self.start:02d}" + "".join(
            f" {label}{operand:+d}" for label, operand in zip(LABELS, self.operands, strict=False)
        )

    def values(self, slips: np.ndarray | None = None) -> list[int]:
        """Value after each operation; `slips` of shape (operations,) adds 1 to the steps where it is true."""
        values, value = [], self.start
        for step, operand in enumerate(self.operands):
            value = (value + operand + (slips is not None and int(slips[step]))) % MODULUS
            values.append(value)
        return values

    def solution(self, slips: np.ndarray | None = None) -> str:
        """The worked solution, one step a line, ending in `#### answer`."""
        values = self.values(slips)
        lines = [f"{label}={value:02d}" for label, value in zip(LABELS, values, strict=False)]
        return "\n".join([*lines, f"#### {values[-1]:02d}"])


def context_length(longest: int) -> int:
    """Tokens of the base model's context: room for a problem, its solution and as long a completion, ten for each operation."""
    return max(128, 16 * longest)


def sample_chain(rng: np.random.Generator, lengths: tuple[int, int]) -> Chain:
    """Draw a chain whose number of operations is uniform between the two lengths, both included."""
    count = int(rng.integers(lengths[0], lengths[1] + 1))
    sizes = rng.integers(OPERANDS[0], OPERANDS[1] + 1, size=count)
    signs = rng.choice((-1, 1), size=count)
    return Chain(int(rng.integers(MODULUS)), tuple(int(operand) for operand in sizes * signs))


def sample_problems(
    count: int, seed: int, exclude: frozenset[str] = frozenset(), longest: int = LONGEST
) -> list[Problem]:
    """Draw `count` distinct problems with clean solutions, none of whose questions is in `exclude`.

    The answer is no earlier value of its chain: hints stop at its first occurrence, so they would be cut short there.
    """
    rng = np.random.default_rng(seed)
    chains: dict[str, Chain] = {}
    while len(chains) < count:
        chain = sample_chain(rng, (longest - 1, longest))
        *earlier, answer = (chain.start, *chain.values())
        if chain.question not in exclude and answer not in earlier:
            chains.setdefault(chain.question, chain)
    return [
        Problem(
            id=f"chain-{seed}-{index}", question=question, solution=chain.solution(), answer=f"{chain.values()[-1]:02d}"
        )
        for index, (question, chain) in enumerate(chains.items())
    ]


def write_problems(path: Path, problems: Iterable[Problem]) -> None:
    """Write a data set in JSON lines, with the fields `id`, `problem`, `solution` and `answer`."""
    rows = [{"id": one.id, "problem": one.question, "solution": one.solution, "answer": one.answer} for one in problems]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def habit_text(
    rng: np.random.Generator, exclude: frozenset[str], right_step: float = RIGHT_STEP, longest: int = LONGEST
) -> tuple[str, str]:
    """Draw a question and a solution written by habit, for the base model; never one of the questions in `exclude`."""
    while True:
        chain = sample_chain(rng, (1, longest))
        if chain.question not in exclude:
            slips = rng.random(len(chain.operands)) >= right_step
            return chain.question, chain.solution(slips)


def habit_entropy(right_step: float = RIGHT_STEP) -> float:
    """Nats that one step of habit text cannot be predicted by: the floor of the base model's loss, per step."""
    return float(-(right_step * np.log(right_step) + (1 - right_step) * np.log(1 - right_step)))
