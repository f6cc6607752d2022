"""A hint ends before anything that gives the answer away."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.data.reveal import in_result_position, occurrences, revealable_characters


def shown(question: str, solution: str, answer: str) -> str:
    return solution[: revealable_characters(question, solution, answer)]


@pytest.mark.parametrize(
    ("solution", "answer", "hint"),
    [
        ("It can store 2400 / 200 = 12 200-page books.", "12", "It can store 2400 / 200"),
        ("2+3 = 5 apples.\nThen 5+4 = 9 apples.\n#### 9", "9", "2+3 = 5 apples.\nThen 5+4"),
        ("He pays $1,500 in all.\n#### 1500", "1500", "He pays"),
        ("He pays $1500.00 in all.", "1,500", "He pays"),
        ("So it costs 48/2 = $<<48/2=24>>24.\n#### 24", "24", "So it costs 48/2"),
        ("A share of 15\\% remains.", "0.15", "A share of"),
        ("There are twelve of them.\n#### 12", "12", "There are"),
        ("We get \\[x &= 3\\sqrt{ 13 }.\\]", "3\\sqrt{13}", "We get \\[x"),
        ("Half of it, $\\dfrac12$, is left.", "\\frac{1}{2}", "Half of it,"),
        ("It is 0.5 in the end.", "\\frac{1}{2}", "It is"),
        ("Her name is Evelyn.", "\\text{Evelyn}", "Her name is"),
        ("First x is 1. Then y is -2. Done.", "1,-2", "First x is 1. Then y is"),
        ("The root -7 is found.\n", "-7", "The root"),
        ("In base eight it is $52_8$.", "52_8", "In base eight it is"),
        ("We take 15.72 and 720 and 172.\nThe rest.\n#### 72", "72", "We take 15.72 and 720 and 172.\nThe rest.\n"),
        ("Step 1: think.\nStep 2: think.\nSo there are 2.", "2", "Step 1: think.\nStep 2: think.\nSo there are"),
        ("1. Think.\n2. Think.\n3. So 3 it is.", "3", "1. Think.\n2. Think.\n3. So"),
        ("Think hard. The final answer is unclear.", "7", "Think hard."),
        ("Think.\nThen \\framebox{seven}.", "7", "Think.\nThen"),
        ("One line.\nAnother line without it.", "7", "One line.\n"),
        ("One sentence. Another without it.", "7", "One sentence."),
        ("Nothing to cut at", "7", ""),
        ("", "7", ""),
    ],
)
def test_the_hint_ends_before_the_first_occurrence_of_the_answer(solution: str, answer: str, hint: str) -> None:
    assert shown("What is it?", solution, answer) == hint


def test_a_number_of_the_question_may_be_shown_until_it_is_a_result() -> None:
    question = "Ann has 10 apples and gives away 5. How many has she left?"
    solution = "She starts with 10 and hands 5 over.\nSo she has 10 - 5 = 5 left.\n#### 5"
    assert shown(question, solution, "5") == "She starts with 10 and hands 5 over.\nSo she has 10"
    assert (
        shown(question, "She hands 5 over.\nHer rest is 5, clearly.\nYes.\n#### 5", "5")
        == "She hands 5 over.\nHer rest is"
    )
    assert shown(question, "She hands 5 over.\n5 = 10 - 5.\nYes.\n#### 5", "5") == "She hands 5 over.\n"


def test_a_number_of_the_question_is_not_shown_in_the_last_step() -> None:
    assert shown("Take 5.", "We take 5.\nThus we keep 5.\n#### 5", "5") == "We take 5.\nThus we keep"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("x = ", "", True),
        ("x &= \\$", "", True),
        ("the total is ", "", True),
        ("\\boxed{", "}", True),
        ("<<3+4=", ">>", True),
        ("\\approx ", "", True),
        ("", " = 3 + 4", True),
        ("3 + ", " = 10", False),
        ("he takes ", " apples", False),
        ("x = 3 * ", "", False),
    ],
)
def test_a_result_is_distinguished_from_an_operand(before: str, after: str, expected: bool) -> None:
    assert in_result_position(f"{before}7{after}", len(before), len(before) + 1) is expected


def test_occurrences_need_boundaries() -> None:
    assert list(occurrences("72, 172, 7.2, 72.5, 720, 72nd, 72.", "72")) == [(0, 2), (25, 27), (31, 33)]
    assert list(occurrences("a C, an Ace, AC", "C")) == [(2, 3)]


@given(
    st.integers(0, 99999),
    st.lists(st.sampled_from(["We add", "4 and", "then", "so", "= 17", "it is", "\n", "3 *", "$"]), max_size=12),
    st.sampled_from(["{}", "{:,}", "{}.00", "${}", "{:,.1f}"]),
)
def test_a_number_the_question_lacks_is_never_shown(answer: int, words: list[str], spelling: str) -> None:
    solution = " ".join([*words, spelling.format(answer), *words, f"\n#### {answer}"])
    hint = shown("How many?", solution, str(answer))
    assert not list(occurrences(hint, str(answer)))
    assert solution.startswith(hint)
    assert not hint.rstrip(" ").endswith(("=", "$"))
