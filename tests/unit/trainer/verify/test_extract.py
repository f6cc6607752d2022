"""The final answer is found wherever a text puts it."""

import time

import pytest

from seele_trainer.verify.extract import extract_answer, marked_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("So \\boxed{\\frac{1}{2}} it is.", "\\frac{1}{2}"),
        ("First \\boxed{1}, no, \\boxed{2}.", "2"),
        ("\\boxed{4} and then \\boxed{5 which was cut", "4"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed 7", "7"),
        ("\\framebox{204} minutes", "204"),
        ("\\boxed{} so #### 3", "3"),
        ("Sum.\n#### 1,234\n", "1,234"),
        ("a\n#### 72 clips", "72"),
        ("<think>5</think> <answer> 6 </answer>", "6"),
        ("The answer is 72 clips.", "72"),
        ("The answer is $3.50.", "$3.50"),
        ("The final answer is: **12**", "12"),
        ("Answer: x = 5\nbecause 7", "x = 5"),
        ("the answer is $11,\\! 111$.", "$11,\\! 111$"),
        ("We get 3 and then -4.5.", "-4.5"),
        ("a = 5-3", "3"),
        ("It costs 1,200 dollars", "1,200"),
        ("no number at all", None),
        ("", None),
    ],
)
def test_the_answer_is_found(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


def test_a_box_precedes_every_other_mark_and_a_mark_precedes_a_number() -> None:
    marks = ["\\boxed{1}", "#### 2", "<answer>3</answer>", "The answer is 4.", "5"]
    for first in range(len(marks)):
        # The kind of the mark decides, not its position in the text.
        assert extract_answer("\n".join(marks[first:])) == str(first + 1)
    assert marked_answer("only 9") is None


@pytest.mark.parametrize("piece", ["\\boxed{", "<answer>", "answer is ", "#### ", "{", "}", "</answer>", "\\", "1,"])
def test_a_repetitive_text_of_maximum_length_takes_no_time(piece: str) -> None:
    began = time.process_time()
    extract_answer(piece * 10_000)
    assert time.process_time() - began < 2.0
