"""Whether a completion's final answer is correct."""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Literal

from seele_trainer.verify.extract import extract_answer, marked_answer
from seele_trainer.verify.normalise import normalised, number_value

Method = Literal["math", "exact"]

RELATIVE_TOLERANCE = Decimal("1e-6")
"""Two decimals count as the same number up to this; whole numbers must be equal."""

TAIL = 2000
"""Characters at the end of a text that are searched for an unmarked answer."""

_IN_A_BASE = re.compile(r"\s*[0-9A-Fa-f]+_\{?\d+\}?\s*")

# math-verify warns once that its own time limits are off. They are off on purpose: SIGALRM fails outside the main thread
# and cannot interrupt C code. The pool kills the whole worker instead.
logging.getLogger("math_verify").setLevel(logging.ERROR)


def is_correct(completion_text: str, expected: str, method: Method) -> bool:
    """Whether the completion's final answer is `expected`.

    `exact` compares the extracted answers as normalised text. `math` compares them as text, then as numbers, and then
    symbolically with math-verify, which can take unbounded time and memory: call it in a process that can be killed.
    """
    if method == "exact":
        answer = extract_answer(completion_text)
        return answer is not None and normalised(answer) == normalised(expected)
    answer = marked_answer(completion_text)
    if answer is None:
        return _symbolically_equal(completion_text, expected, whole_text=True)
    if normalised(answer) == normalised(expected):
        return True
    value, expected_value = number_value(answer), number_value(expected)
    if value is not None and expected_value is not None and "%" not in answer + expected:
        return _same_number(value, expected_value)
    return _symbolically_equal(answer, expected, whole_text=False)


def _same_number(value: Decimal, expected: Decimal) -> bool:
    if value == expected:
        return True
    if max(value.adjusted(), expected.adjusted()) > 50 or (_is_whole(value) and _is_whole(expected)):
        return False
    return abs(value - expected) <= RELATIVE_TOLERANCE * abs(expected)


def _is_whole(value: Decimal) -> bool:
    return value == value.to_integral_value()


def _symbolically_equal(answer: str, expected: str, *, whole_text: bool) -> bool:
    """Whether `answer` equals `expected` as mathematics. With `whole_text`, `answer` is a text that contains the answer.

    Never returns for some inputs, such as a tower of exponents.
    """
    # Imported on first use: sympy takes half a second and 60 MB that `exact` does not need.
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
    from sympy import nan, zoo

    if not whole_text and _IN_A_BASE.fullmatch(expected) and _IN_A_BASE.fullmatch(answer):
        return False  # math-verify ignores the base of `52_8`; equal texts were accepted before
    # An extracted answer is boxed again and parsed as a whole. By default a box that cannot be parsed would be replaced
    # by any fraction or number inside it, and half an answer would be accepted.
    box = (LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),)
    if whole_text:
        anywhere = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
        found = parse(answer[-TAIL:].replace("\\$", ""), anywhere, parsing_timeout=None)
    else:
        found = parse(_boxed(answer), box, parsing_timeout=None)
    # Drop expressions for which sympy found no value, since they compare equal to many others: `\gamma(x-1)`, for
    # example, is read as the gamma function at a pole.
    wanted, found = (
        [value for value in parsed if isinstance(value, str) or not value.has(zoo, nan)]
        for parsed in (parse(_boxed(expected), box, parsing_timeout=None), found)
    )
    return bool(verify(wanted, found, timeout_seconds=None))


def _boxed(answer: str) -> str:
    return "\\boxed{" + answer.replace("\\$", "").replace("$", "") + "}"
