"""On real problems, at every rate and in both units, no hint gives the final answer away.

These checks are separate, with plain regular expressions, so that they do not share the rules that they test.
"""

import re
from pathlib import Path
from typing import Literal

import pytest
from transformers import PreTrainedTokenizerFast

from seele_trainer.config import DatasetSource, Fields
from seele_trainer.data.problem import Problem, TokenizedProblem
from seele_trainer.data.sources import load_problems
from seele_trainer.data.tokenize import tokenize

RATES = (0.0, 0.25, 0.5, 0.75, 1.0)
UNITS: tuple[Literal["token", "step"], ...] = ("token", "step")
GSM8K_SAMPLE = {"gsm8k_tokenizer": 1500, "merging_tokenizer": 400}

MARK = re.compile(r"####|\\boxed|\\framebox|\\fbox|answer is|answer:|<answer>|final answer", re.IGNORECASE)
NUMBER = re.compile(r"\d{1,3}(?:(?:,|,\\!|\{,\})\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
RESULT = re.compile(r"(?:=|≈|\\approx|\\boxed\{|\bis|\bare)\s*[&\s]*(?:\\?\$)?\s*-?\s*(?:\\\$)?$")


def value(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text))


def plain_number(answer: str) -> float | None:
    found = re.fullmatch(rf"-?\\?\$?({NUMBER.pattern})(?:\\?%|\^\\circ)?", answer)
    return value(found.group(1)) if found else None


def standing_numbers(text: str, number: float) -> list[re.Match[str]]:
    return [match for match in NUMBER.finditer(text) if value(match.group()) == number]


SMALL_NUMBERS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty"""


def in_words(number: float) -> str:
    names = {float(count): name for count, name in enumerate(SMALL_NUMBERS.split())}
    names |= {30.0: "thirty", 40.0: "forty", 50.0: "fifty", 60.0: "sixty"}
    return names.get(number, f"{number:g}")


def leaks(problem: Problem, hint: str) -> list[str]:
    """What is wrong with a hint, in words; empty if nothing is.

    A hint that ends inside a longer number (`= 5` of `= 50`) does not contain the answer, even if it seems to.
    """
    cut_number = re.search(r"[\d.,]+$", hint)
    if cut_number and re.match(r"\d|[.,]\d", problem.solution[len(hint) :]):
        hint = hint[: cut_number.start()]
    found = []
    if MARK.search(hint):
        found.append("announces the final answer")
    number = plain_number(problem.answer)
    if number is None:
        squeezed = re.sub(r"\s", "", problem.answer)
        if (
            len(squeezed) > 2
            and squeezed in re.sub(r"\s", "", hint)
            and squeezed not in re.sub(r"\s", "", problem.question)
        ):
            found.append("contains the answer's text")
        return found
    standing = standing_numbers(hint, number)
    asked = (
        standing_numbers(problem.question, number)
        or in_words(number) in problem.question.lower()
        or (number == 12 and "dozen" in problem.question)
    )
    if standing and not asked and not re.search(r"(?i)\bstep \d", hint):
        found.append("contains the answer, which the question does not")
    if any(RESULT.search(hint[: match.start()]) for match in standing):
        found.append("contains the answer as a result")
    return found


def check_all(problems: list[Problem], tokenizer: PreTrainedTokenizerFast) -> list[TokenizedProblem]:
    tokenized_problems = [tokenize(problem, tokenizer, "plain") for problem in problems]
    bad = []
    for tokenized in tokenized_problems:
        lengths = {tokenized.hint_length(rate, unit) for rate in RATES for unit in UNITS}
        for length in sorted(lengths | set(tokenized.step_ends)):
            # A token unit may cut a character of several bytes in two.
            hint = tokenizer.decode(tokenized.hint(length)).rstrip("\ufffd")
            assert tokenized.problem.solution.startswith(hint)
            if length == tokenized.revealable and re.search(r"=\s*\\?\$?$", hint):
                bad.append(f"{tokenized.problem.id} ends in a dangling equals sign")
            bad += [
                f"{tokenized.problem.id} ({tokenized.problem.answer}) {leak}" for leak in leaks(tokenized.problem, hint)
            ]
    assert not bad, "\n".join(bad[:20])
    return tokenized_problems


def test_the_checks_detect_a_leak() -> None:
    problem = Problem("1", "How many are 40 and 32?", "", "72")
    assert leaks(problem, "40+32 = 72 clips") == [
        "contains the answer, which the question does not",
        "contains the answer as a result",
    ]
    assert leaks(problem, "The answer is") == ["announces the final answer"]
    assert leaks(problem, "40+32") == []
    assert leaks(Problem("1", "", "", "3\\sqrt{2}"), "so 3 \\sqrt{2}") == ["contains the answer's text"]


@pytest.mark.parametrize("tokenizer_name", GSM8K_SAMPLE)
def test_no_hint_of_gsm8k_gives_the_answer_away(
    shared_data: Path, tokenizer_name: str, request: pytest.FixtureRequest
) -> None:
    source = DatasetSource(
        path=str(shared_data / "gsm8k" / "train.jsonl"), format="gsm8k", limit=GSM8K_SAMPLE[tokenizer_name]
    )
    tokenized = check_all(load_problems(source, need_solution=True), request.getfixturevalue(tokenizer_name))
    shares = [problem.revealable / len(problem.solution) for problem in tokenized]
    # Cutting everything would be safe but useless.
    assert sum(shares) / len(shares) > 0.6
    assert sum(bool(problem.step_ends) for problem in tokenized) > 0.8 * len(tokenized)


def test_no_hint_of_math500_gives_the_answer_away(shared_data: Path, gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    path = str(shared_data / "benchmarks" / "math500.jsonl")
    source = DatasetSource(path=path, fields=Fields(answer="answer", id="unique_id"))
    tokenized = check_all(load_problems(source, need_solution=True), gsm8k_tokenizer)
    shares = [problem.revealable / len(problem.solution) for problem in tokenized]
    assert sum(shares) / len(shares) > 0.6
