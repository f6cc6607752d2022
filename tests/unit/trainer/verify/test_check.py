"""The same answer is accepted however it is written, and another is not."""

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.config import Verifier
from seele_trainer.verify.check import Method, is_correct, method_named
from seele_trainer.verify.normalise import normalised, number_value

SAME = [
    ("1,000", "1000"),
    ("1000.0", "1000"),
    ("\\$32,\\!348", "32348"),
    ("025", "25"),
    ("(073)", "73"),
    ("90^\\circ", "90"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("\\frac{14}{3}", "\\dfrac{14}{3}"),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\frac{\\pi}{2})"),
    ("\\text{Evelyn}", "Evelyn"),
    ("$2n-2$", "2n - 2"),
    ("\\frac12", "\\frac{1}{2}"),
]
SAME_AS_MATHEMATICS = [
    ("\\frac{1}{2}", "0.5"),
    ("1/2", "\\frac{1}{2}"),
    ("2(n-1)", "2n-2"),
    ("\\sqrt{12}", "2\\sqrt{3}"),
    ("-2,1", "1,-2"),
    ("50\\%", "0.5"),
    ("0.3333333", "\\frac{1}{3}"),
    ("q-p", "-p+q"),
]
DIFFERENT = [
    ("1001", "1000"),
    ("-5", "5"),
    ("1000001", "1000000"),
    ("52_8", "52_9"),
    ("\\frac{1}{3}", "\\frac{1}{2}"),
    ("(1,2)", "(2,1)"),
    ("p-q", "q-p"),
    ("0.5", "0.51"),
    ("\\frac{1}{3} E_{1}+\\frac{2}{3} E_{3}", "\\frac{1}{3} E_{1}+\\frac{2}{3} E_{2}"),
    ("m c^{2}\\left(\\gamma^{2}-2\\right)", "m c^{2}\\left(\\gamma^{2}-1\\right)"),
    ("5", "Evelyn"),
]


@pytest.mark.parametrize(("answer", "expected"), SAME)
@pytest.mark.parametrize("method", ["math", "exact"])
def test_spellings_of_one_answer_are_the_same(answer: str, expected: str, method: Method) -> None:
    if (method, answer) == ("exact", "\\frac12"):
        assert normalised("\\frac12") == normalised("\\frac{1}{2}")
    assert is_correct(f"So \\boxed{{{answer}}}.", expected, method)


@pytest.mark.parametrize(("answer", "expected"), SAME_AS_MATHEMATICS)
def test_mathematics_sees_through_the_form(answer: str, expected: str) -> None:
    assert is_correct(f"So \\boxed{{{answer}}}.", expected, "math")
    assert not is_correct(f"So \\boxed{{{answer}}}.", expected, "exact")


@pytest.mark.parametrize(("answer", "expected"), DIFFERENT)
@pytest.mark.parametrize("method", ["math", "exact"])
def test_other_answers_are_wrong(answer: str, expected: str, method: Method) -> None:
    assert not is_correct(f"So \\boxed{{{answer}}}.", expected, method)


@pytest.mark.parametrize("method", ["math", "exact"])
def test_a_text_without_answer_is_wrong(method: Method) -> None:
    assert not is_correct("I do not know.", "5", method)
    assert not is_correct("", "5", method)


def test_an_unmarked_formula_at_the_end_counts_for_mathematics() -> None:
    assert is_correct("So in the end we get $\\frac{3}{4}$.", "0.75", "math")
    assert not is_correct("So in the end we get $\\frac{3}{4}$.", "4", "math")


@given(st.integers(-(10**9), 10**9), st.sampled_from(["{}", "{:,}", "{}.0", "${}$", "\\text{{{}}}", " {} "]))
def test_a_whole_number_equals_itself_and_no_neighbour(number: int, spelling: str) -> None:
    text = f"\\boxed{{{spelling.format(number)}}}"
    for method in ("math", "exact"):
        assert is_correct(text, str(number), method)
        assert not is_correct(text, str(number + 1), method)
        assert number == 0 or not is_correct(text, str(-number), method)


@pytest.mark.parametrize("text", ["1e9999", "9e99999999", "9" * 100_000, "1,23", "--5", "5 apples", "", "-", "."])
def test_odd_numbers_are_read_without_trouble(text: str) -> None:
    number_value(text)
    assert isinstance(normalised(text), str)


LONG = [
    ("x", 20_000),
    ("1,", 10_000),
    ("9", 20_000),
    ("-", 5000),
    ("(", 3000),
    ("[", 3000),
    ("1 ", 5000),
    ("5\\pm", 1000),
]


@pytest.mark.parametrize(("piece", "times"), [*LONG, ("\\frac{", 5000), ("\\text{", 3000), ("answer is ", 5000)])
def test_a_long_answer_is_wrong_and_takes_no_time(piece: str, times: int) -> None:
    began = time.process_time()
    assert not is_correct(f"\\boxed{{{times * piece}5{times * '}'}", "\\frac{5}{7}", "math")
    assert time.process_time() - began < 2.0


def test_an_unknown_method_is_an_error_and_not_another_method() -> None:
    with pytest.raises(ValueError, match=r"^no verifier is named .maths.: verifier\.method must be math or exact$"):
        method_named("maths")
    with pytest.raises(ValueError, match="no verifier is named"):
        is_correct("\\boxed{5}", "5", "own")  # type: ignore[arg-type]


def test_every_method_of_a_run_is_known_to_the_verifier() -> None:
    assert get_args(Verifier.model_fields["method"].annotation) == get_args(Method)
