"""Whether a completion's final answer is correct."""

import re
from decimal import Decimal
from typing import Literal, cast, get_args

from seele_trainer.verify.compare import ends_with_equal, equal_as_mathematics
from seele_trainer.verify.evaluate import equal_as_equations, equal_by_value
from seele_trainer.verify.extract import extract_answer, final_turn, is_finished, marked_answer
from seele_trainer.verify.forms import (
    in_figures,
    same_base,
    same_members,
    same_time,
    same_word,
    split_percent,
    without_inequalities,
)
from seele_trainer.verify.normalise import (
    normalised,
    number_value,
    right_hand_side,
    undecorated,
    unwrapped,
    with_decimal_point,
)
from seele_trainer.verify.spelling import as_latex
from seele_trainer.verify.units import is_same_unit, split_unit

Method = Literal["math", "exact"]

RELATIVE_TOLERANCE = Decimal("1e-6")
"""Two decimals count as the same number up to this; whole numbers must be equal."""

_CHOICE = re.compile(
    r"\\?(?:(?:text|textbf|mathrm|mathbf)\s*\{\s*)?\(?([A-H])(?:\)|[.:](?=[\s}\\]))\s*\}?(.*)", re.DOTALL
)
_POINT = re.compile(r"\s*\((?:\d+\s*,\s*)+\d+\)\s*")
_LETTER = re.compile(r"\(?([A-H])\)?\.?")
_CHOICES = re.compile(r"[A-H]{2,}")
_SEVERAL = re.compile(r"[,\s()]|\band\b|\\text\{\s*and\s*\}")
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
    answer, expected = undecorated(answer), undecorated(expected)
    if normalised(answer) == normalised(expected):
        return True
    if _LETTER.fullmatch(expected) and re.fullmatch(r"\(?[a-h]\)?", answer):
        answer = answer.upper()
    letters = [_SEVERAL.sub("", unwrapped(text)) for text in (answer, expected)]
    if all(map(_CHOICES.fullmatch, letters)) and "," in answer + expected:
        return sorted(letters[0]) == sorted(letters[1])
    (letter, answer), (expected_letter, expected) = split_choice(answer), split_choice(expected)
    if letter and expected_letter:
        return letter == expected_letter and (not answer or not expected or _same_amount(answer, expected))
    return bool(answer and expected) and _same_amount(answer, expected)


def split_choice(answer: str) -> tuple[str, str]:
    """Letter and text of an answer to a multiple choice (`\\textbf{(B)}\\ 12`, `B. 12`, `(B)`), either of which may be ""."""
    choice = _CHOICE.fullmatch(answer.strip().strip("$"))
    if choice is not None:
        return choice.group(1), _GAP.sub(" ", choice.group(2), count=1).strip() if choice.group(2) else ""
    letter = _LETTER.fullmatch(answer.strip())
    return (letter.group(1), "") if letter else ("", answer)


def _same_amount(answer: str, expected: str) -> bool:
    for same in (same_word, same_time, same_base):
        if (verdict := same(answer, expected)) is not None:
            return verdict
    (amount, unit), (expected_amount, expected_unit) = split_unit(in_figures(answer)), split_unit(in_figures(expected))
    if unit and expected_unit and not is_same_unit(unit, expected_unit):
        return False
    if normalised(amount) == normalised(expected_amount):
        return True
    value, expected_value = number_value(as_latex(amount)), number_value(as_latex(expected_amount))
    if value is None and expected_value is not None and not _is_whole(expected_value):
        value = number_value(with_decimal_point(amount))
    if (share := _same_share(amount, expected_amount)) is not None:
        return share
    if value is not None and expected_value is not None:
        return _same_number(value, expected_value)
    if (value is None) != (expected_value is None) and _POINT.fullmatch(amount if value is None else expected_amount):
        return False
    same_value = equal_by_value(right_hand_side(amount), right_hand_side(expected_amount))
    if same_value is not None:
        return same_value
    if (equations := equal_as_equations(amount, expected_amount)) is not None:
        return equations
    amount, expected_amount = without_inequalities(amount, expected_amount)
    if normalised(amount) == normalised(expected_amount):
        return True
    members = same_members(amount, expected_amount, _same_amount)
    return equal_as_mathematics(amount, expected_amount) if members is None else members


def _same_share(answer: str, expected: str) -> bool | None:
    """Whether two answers are equal, where `20%` is 20 and 0.2; None if neither is a percentage."""
    (number, is_share), (expected_number, is_expected_share) = split_percent(answer), split_percent(expected)
    if not (is_share or is_expected_share) or "%" in number + expected_number:
        return None
    if _same_amount(number, expected_number):
        return True
    if is_share == is_expected_share:
        return False
    if is_share:
        return _same_amount(f"({as_latex(number)})/100", expected_number)
    return _same_amount(number, f"({as_latex(expected_number)})/100")


def _same_number(value: Decimal, expected: Decimal) -> bool:
    if value == expected:
        return True
    if max(value.adjusted(), expected.adjusted()) > 50 or (_is_whole(value) and _is_whole(expected)):
        return False
    return abs(value - expected) <= RELATIVE_TOLERANCE * abs(expected)


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()
