"""Measures how often the verifier accepts right and wrong answers, made from the answers of six benchmarks.

    python -m benchmarks.verifier_accuracy [FOLDER]

FOLDER has gsm8k/test.jsonl and benchmarks/*.jsonl; the default is ../shared/data, next to the repository. Right answers: the
answer in a box, as `The answer is $…$`, as an unmarked formula at the end, and the reference solution itself (recognised
only if it ends in a marked answer). Wrong answers: the answer with its last number plus one or its sign flipped, and the
answer of another problem.
"""

import argparse
import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from seele_trainer.config import Benchmark, Verifier
from seele_trainer.data.problem import Problem
from seele_trainer.data.sources import load_problems
from seele_trainer.evaluation.benchmarks import known_benchmark
from seele_trainer.verify.normalise import normalised, right_hand_side, unwrapped
from seele_trainer.verify.pool import VerifierPool

FILES = {
    "gsm8k": "gsm8k/test.jsonl",
    "math500": "benchmarks/math500.jsonl",
    "minerva_math": "benchmarks/minerva_math.jsonl",
    "olympiadbench": "benchmarks/olympiadbench.jsonl",
    "aime24": "benchmarks/aime24.jsonl",
    "amc23": "benchmarks/amc23.jsonl",
}


@dataclass(frozen=True)
class Rate:
    """How many of the `checked` answers were accepted, how many timed out (`undecided`), and those judged wrongly."""

    accepted: int
    checked: int
    undecided: int
    errors: tuple[tuple[str, str], ...] = ()

    @property
    def share(self) -> float:
        """Accepted share; 0 if nothing was checked."""
        return self.accepted / self.checked if self.checked else 0.0


def plus_one(answer: str) -> str | None:
    """The answer with its last number increased by one; None if it has no number."""
    numbers = list(re.finditer(r"(?<![\d_^])(?<!_\{)(?<!\^\{)\d+", answer))
    if not numbers:
        return None
    last = numbers[-1]
    return f"{answer[: last.start()]}{int(last.group()) + 1}{answer[last.end() :]}"


def sign_flipped(answer: str) -> str | None:
    """The negative of a single term; None for zero, and for sums, lists and words."""
    core = right_hand_side(unwrapped(answer))
    if re.search(r".[-+=,]|\\pm|\\in\b|\\cup", core) or not re.search(r"\d", core) or normalised(core) == "0":
        return None
    return core[1:] if core.startswith("-") else f"-{core}"


def inner(answer: str) -> str:
    """The answer without a final full stop and enclosing dollar signs."""
    return answer.strip().removesuffix(".").strip("$")


def variants(problems: list[Problem], solutions: list[str]) -> dict[str, list[tuple[str, str]]]:
    """(completion, expected answer) pairs by kind of answer."""
    answers = [problem.answer for problem in problems]
    others = [
        next(other for other in answers[index + 1 :] + answers if normalised(other) != normalised(answer))
        for index, answer in enumerate(answers)
    ]
    return {
        "boxed": [(f"So it is \\boxed{{{answer}}}.", answer) for answer in answers],
        "stated": [(f"So, finally, the answer is ${inner(answer)}$.", answer) for answer in answers],
        "unmarked": [(f"In the end we get ${inner(answer)}$", answer) for answer in answers],
        "solution": [(solution, answer) for solution, answer in zip(solutions, answers, strict=True) if solution],
        "plus one": _changed(answers, plus_one),
        "sign flipped": _changed(answers, sign_flipped),
        "another's": [(f"So it is \\boxed{{{other}}}.", answer) for other, answer in zip(others, answers, strict=True)],
    }


def _changed(answers: list[str], change: Callable[[str], str | None]) -> list[tuple[str, str]]:
    changed = [(change(answer), answer) for answer in answers]
    return [(f"So it is \\boxed{{{wrong}}}.", answer) for wrong, answer in changed if wrong is not None]


RIGHT = ("boxed", "stated", "unmarked", "solution")


async def measure(data: Path, title: str, pool: VerifierPool, limit: int | None = None) -> dict[str, Rate]:
    """Acceptance rates by kind of answer on one benchmark."""
    benchmark = known_benchmark(title, str(data / FILES[title])).model_copy(update={"limit": limit})
    problems = load_problems(benchmark, need_solution=False)
    rates = {}
    for kind, pairs in variants(problems, _solutions(problems, benchmark)).items():
        verdicts = await pool.check(pairs)
        expected = kind in RIGHT
        errors = tuple(pair for pair, verdict in zip(pairs, verdicts, strict=True) if verdict is not expected)
        rates[kind] = Rate(verdicts.count(True), len(pairs), verdicts.count(None), errors)
    return rates


def _solutions(problems: list[Problem], benchmark: Benchmark) -> list[str]:
    """Reference solutions; "" for OlympiadBench, whose solutions do not say which formula is the answer."""
    return ["" if benchmark.title == "olympiadbench" else problem.solution for problem in problems]


async def main(data: Path, show_errors: int) -> None:
    """Print the table and some answers that were judged wrongly."""
    pool = VerifierPool(Verifier(timeout_seconds=10))
    await pool.start()
    try:
        table = {title: await measure(data, title, pool) for title in FILES}
    finally:
        await pool.close()
    kinds = list(next(iter(table.values())))
    print(f"{'% accepted':14}" + "".join(f"{kind:>14}" for kind in kinds))
    for title, rates in table.items():
        cells = [f"{100 * rate.share:.1f} of {rate.checked}" if rate.checked else "-" for rate in rates.values()]
        print(f"{title:14}" + "".join(f"{cell:>14}" for cell in cells))
    undecided = sum(rate.undecided for rates in table.values() for rate in rates.values())
    print(f"{undecided} checks timed out ({pool.timeouts}) or crashed ({pool.crashes})")
    for title, rates in table.items():
        for kind, rate in rates.items():
            for text, answer in rate.errors[:show_errors]:
                print(f"judged wrongly: {title}, {kind}: {text[-100:]!r} for {answer!r}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parents[2] / "shared" / "data")
    parser.add_argument("--errors", type=int, default=3, help="wrong verdicts to show of each kind")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.folder, arguments.errors))
