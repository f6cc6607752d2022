"""Symbolic comparison of two answers by math-verify and sympy."""

from __future__ import annotations

import logging
import re

from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify
from sympy import Basic, MatrixBase, nan, zoo

# math-verify warns once that its own time limits are off. They are, on purpose: they use SIGALRM, which fails off the
# main thread and cannot interrupt C code; the pool kills the whole worker instead.
logging.getLogger("math_verify").setLevel(logging.ERROR)

# An answer that was extracted is boxed again and parsed as a whole. With the defaults a box that cannot be parsed would
# be replaced by any fraction or number inside it, and half an answer would pass for the answer.
_BOX = (LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),)
_ANYWHERE = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())

TAIL = 2000
"""Characters at the end of a text in which an answer without a mark is looked for."""

_IN_A_BASE = re.compile(r"\s*[0-9A-Fa-f]+_\{?\d+\}?\s*")


def equal(answer: str, gold: str, *, whole_text: bool) -> bool:
    """Whether `answer` equals `gold` as mathematics. With `whole_text`, `answer` is a text in which to find it.

    Never returns for some inputs, such as a tower of exponents.
    """
    if not whole_text and _IN_A_BASE.fullmatch(gold) and _IN_A_BASE.fullmatch(answer):
        return False  # math-verify ignores the base of `52_8`; equal texts were accepted before
    if whole_text:
        found = parse(answer[-TAIL:].replace("\\$", ""), _ANYWHERE, parsing_timeout=None)
    else:
        found = parse(_boxed(answer), _BOX, parsing_timeout=None)
    expected = parse(_boxed(gold), _BOX, parsing_timeout=None)
    return bool(verify(_finite(expected), _finite(found), timeout_seconds=None))


def _finite(parsed: list[Basic | MatrixBase | str]) -> list[Basic | MatrixBase | str]:
    """What was parsed, without expressions in which sympy found no value: they compare equal to many others.

    `\\gamma(x-1)`, for one, is read as the gamma function at a pole.
    """
    return [value for value in parsed if isinstance(value, str) or not value.has(zoo, nan)]


def _boxed(answer: str) -> str:
    return "\\boxed{" + answer.replace("\\$", "").replace("$", "") + "}"
