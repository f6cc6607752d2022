"""Whether a completion's final answer is correct."""

import re
from decimal import Decimal
from typing import Literal, cast, get_args

from seele_trainer.verify.compare import ends_with_equal, equal_as_mathematics
from seele_trainer.verify.extract import extract_answer, final_turn, is_finished, marked_answer
from seele_trainer.verify.normalise import normalised, number_value
from seele_trainer.verify.spelling import as_latex
from seele_trainer.verify.units import split_unit

Method = Literal["math", "exact"]

RELATIVE_TOLERANCE = Decimal("1e-6")
"""Two decimals count as the same number up to this; whole numbers must be equal."""

_CHOICE = re.compile(
    r"\\?(?:(?:text|textbf|mathrm|mathbf)\s*\{\s*)?\(?([A-H])(?:\)|[.:](?=[\s}\\]))\s*\}?(.*)", re.DOTALL
)
_POINT = re.compile(r"\s*\((?:\d+\s*,\s*)+\d+\)\s*")
_LETTER = re.compile(r"\(?([A-H])\)?\.?")
_GAP = re.compile(r"(?:\\[ ,;:]|\\quad|\\qquad|~|\s|[.:])+")


def method_named(name: str) -> Method:
    """The method of this name. Raises ValueError for an unknown one, which must not be checked by another."""
    for method in get_args(Method):
        if name == method:
            return cast(Method, method)
    raise ValueError(f"no verifier is named {name!r}: verifier.method must be {' or '.join(get_args(Method))}")


def is_correct(completion_text: str, expected: str, method: Method) -> bool:
    """Whether the completion's final answer is `expected`.

    `exact` compares the extracted answers as normalised text. `math` compares them as text, then as numbers, and then
    symbolically with math-verify, which can take unbounded time and memory: call it in a process that can be killed.
    Raises ValueError for an unknown method.
    """
    method = method_named(method)
    text = final_turn(completion_text)
    answer = marked_answer(text)
    if answer is None and not is_finished(text):
        return False
    if method == "exact":
        answer = extract_answer(text)
        return answer is not None and normalised(answer) == normalised(expected)
    return ends_with_equal(text, expected) if answer is None else _same(answer, expected)


def _same(answer: str, expected: str) -> bool:
    """Whether two answers are the same, whichever of them names a unit or the letter of a choice."""
    if normalised(answer) == normalised(expected):
        return True
    (letter, answer), (expected_letter, expected) = _choice(answer), _choice(expected)
    if letter and expected_letter:
        return letter == expected_letter and (not answer or not expected or _same_amount(answer, expected))
    return bool(answer and expected) and _same_amount(answer, expected)


def _choice(answer: str) -> tuple[str, str]:
    """Letter and text of an answer to a multiple choice (`\\textbf{(B)}\\ 12`, `B. 12`, `(B)`), either of which may be ""."""
    choice = _CHOICE.fullmatch(answer.strip().strip("$"))
    if choice is not None:
        return choice.group(1), _GAP.sub(" ", choice.group(2), count=1).strip() if choice.group(2) else ""
    letter = _LETTER.fullmatch(answer.strip())
    return (letter.group(1), "") if letter else ("", answer)


def _same_amount(answer: str, expected: str) -> bool:
    (amount, unit), (expected_amount, expected_unit) = split_unit(answer), split_unit(expected)
    if unit and expected_unit and unit != expected_unit:
        return False
    if normalised(amount) == normalised(expected_amount):
        return True
    value, expected_value = number_value(as_latex(amount)), number_value(as_latex(expected_amount))
    if value is not None and expected_value is not None and "%" not in amount + expected_amount:
        return _same_number(value, expected_value)
    if (value is None) != (expected_value is None) and _POINT.fullmatch(amount if value is None else expected_amount):
        return False
    return equal_as_mathematics(amount, expected_amount)


def _same_number(value: Decimal, expected: Decimal) -> bool:
    if value == expected:
        return True
    if max(value.adjusted(), expected.adjusted()) > 50 or (_is_whole(value) and _is_whole(expected)):
        return False
    return abs(value - expected) <= RELATIVE_TOLERANCE * abs(expected)


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()
