"""The quickstart's problems: right solutions, a habit of the stated strength, and sets that never overlap."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.quickstart import chains


@given(st.integers(0, 2**32 - 1), st.integers(2, len(chains.LABELS)))
def test_the_clean_solution_follows_the_operations_and_ends_in_the_answer(seed: int, longest: int) -> None:
    (problem,) = chains.sample_problems(1, seed, longest=longest)
    start, *operations = problem.question.split(" ")
    value = int(start)
    lines = problem.solution.split("\n")
    assert f"={problem.answer}" not in "\n".join(lines[: len(operations) - 1])
    for operation, line in zip(operations, lines, strict=False):
        value = (value + int(operation[1:])) % 100
        assert line == f"{operation[0]}={value:02d}"
    assert lines[-1] == f"#### {value:02d}"
    assert problem.answer == f"{value:02d}"
    assert longest - 1 <= len(operations) <= longest


def test_habit_text_takes_the_right_step_as_often_as_stated() -> None:
    rng = np.random.default_rng(0)
    right = steps = 0
    for _ in range(2000):
        question, solution = chains.habit_text(rng, frozenset())
        value = int(question.split(" ")[0])
        for operation, result in zip(question.split(" ")[1:], re.findall(r"=(\d\d)", solution), strict=True):
            expected = (value + int(operation[1:])) % 100
            assert int(result) in {expected, (expected + 1) % 100}
            right += int(result) == expected
            steps += 1
            value = int(result)
    assert right / steps == pytest.approx(chains.RIGHT_STEP, abs=0.02)


def test_sets_of_problems_are_distinct_and_disjoint_from_what_is_excluded() -> None:
    test = chains.sample_problems(200, 1)
    held_out = frozenset(problem.question for problem in test)
    train = chains.sample_problems(500, 1, held_out)
    assert len({problem.question for problem in train}) == 500
    assert not held_out & {problem.question for problem in train}


def test_habit_text_never_uses_an_excluded_question() -> None:
    seen = [chains.habit_text(np.random.default_rng(3), frozenset())[0]]
    question, _ = chains.habit_text(np.random.default_rng(3), frozenset(seen))
    assert question != seen[0]
