"""Chains of sums modulo 100: problems that a small model could solve, but almost never does because of a habit.

A problem is a start value and labelled operations, `37 a+5 b-8 c+4`. Its solution writes each intermediate value on a line of
its own, `a=42`, `b=34`, `c=38`, and then the answer, `#### 38`. The base model is trained on text in which each step is right
with probability `RIGHT_STEP` and otherwise one too high; the next step continues from the result. So the model has seen the
rule everywhere, yet completes a chain of eight operations once in a hundred million samples, and never by greedy decoding. It
stands for a pretrained model with a latent skill, on problems that it fails every time.
"""

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
"""Operations of the longest chains. The base model is trained on chains of all lengths up to this. The problems for
reinforcement learning and the held-out problems have this length or one less."""
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
        """Value after each operation; a step whose element of `slips`, of shape (operations,), is true adds 1 too many."""
        values, value = [], self.start
        for step, operand in enumerate(self.operands):
            value = (value + operand + (slips is not None and int(slips[step]))) % MODULUS
            values.append(value)
        return values

    def solution(self, slips: np.ndarray | None = None) -> str:
        """The worked solution: one step per line, then `#### answer`."""
        values = self.values(slips)
        lines = [f"{label}={value:02d}" for label, value in zip(LABELS, values, strict=False)]
        return "\n".join([*lines, f"#### {values[-1]:02d}"])


def context_length(longest: int) -> int:
    """The base model's context in tokens. A problem, its solution and a completion as long take ten per operation."""
    return max(128, 16 * longest)


def sample_chain(rng: np.random.Generator, lengths: tuple[int, int]) -> Chain:
    """Draw a chain whose number of operations is uniform between the two lengths, inclusive."""
    count = int(rng.integers(lengths[0], lengths[1] + 1))
    sizes = rng.integers(OPERANDS[0], OPERANDS[1] + 1, size=count)
    signs = rng.choice((-1, 1), size=count)
    return Chain(int(rng.integers(MODULUS)), tuple(int(operand) for operand in sizes * signs))


def sample_problems(
    count: int, seed: int, exclude: frozenset[str] = frozenset(), longest: int = LONGEST
) -> list[Problem]:
    """Draw `count` distinct problems with correct solutions and without the questions in `exclude`.

    No earlier value of a chain equals its answer, since hints end before the first occurrence of the answer.
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
    """Write a JSONL data set with the fields `id`, `problem`, `solution` and `answer`."""
    rows = [{"id": one.id, "problem": one.question, "solution": one.solution, "answer": one.answer} for one in problems]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def habit_text(
    rng: np.random.Generator, exclude: frozenset[str], right_step: float = RIGHT_STEP, longest: int = LONGEST
) -> tuple[str, str]:
    """Draw a question that is not in `exclude`, and a solution with the habit, to train the base model on."""
    while True:
        chain = sample_chain(rng, (1, longest))
        if chain.question not in exclude:
            slips = rng.random(len(chain.operands)) >= right_step
            return chain.question, chain.solution(slips)


def habit_entropy(right_step: float = RIGHT_STEP) -> float:
    """Entropy of one step of habit text, in nats: the lowest loss per step that a base model can reach."""
    return float(-(right_step * np.log(right_step) + (1 - right_step) * np.log(1 - right_step)))
