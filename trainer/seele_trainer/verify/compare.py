"""Compare two answers as mathematics, with math-verify and sympy.

Never returns for some answers, such as a tower of exponents, so call it in a process that can be killed.
"""

import logging
import re
from typing import Any

from seele_trainer.verify.spelling import as_latex, with_powers_of_ten

TAIL = 2000
"""Characters at the end of a text that are searched for an unmarked answer."""

EXACT = 1e-20
"""Largest relative difference of two equal formulas at a point, in 30 digits; `1 - 10^{-18}` is not 1."""

DECIMAL = 1e-12
"""The same if one of them has a decimal, which sympy holds in double precision."""

LARGE = 1e18
"""From here on, two whole numbers may be different and yet as close as `EXACT`."""

MAX_DIGITS = 3000
"""Digits to which the difference of two such numbers is computed."""

ROUNDED = (5e-7, 1e-5)
"""Largest absolute and relative difference of a value and its decimal with six places."""

_IN_A_BASE = re.compile(r"\s*[0-9A-Fa-f]+_\{?\d+\}?\s*")

# Positive, because letters in answers mostly are: $\sqrt{1/n}$ is $1/\sqrt{n}$. Three points that satisfy no equation.
_POINTS = ("0.7310585786", "1.6487212707", "2.2360679775")

# math-verify warns once that its own time limits are off. They are off on purpose: SIGALRM fails outside the main thread
# and cannot interrupt C code. The pool kills the whole worker instead.
logging.getLogger("math_verify").setLevel(logging.ERROR)


MAX_ANSWER = 2000
"""Characters of the longest answer that is parsed; a longer one is only compared as text and as a number."""


def equal_as_mathematics(answer: str, expected: str) -> bool:
    """Whether two answers, each in LaTeX or in one of the spellings of `as_latex`, are equal."""
    if _IN_A_BASE.fullmatch(expected) and _IN_A_BASE.fullmatch(answer):
        return False  # math-verify ignores the base of `52_8`; equal texts were accepted before
    if max(len(answer), len(expected)) > MAX_ANSWER:
        return False
    return _equal(_parsed(answer), _parsed(expected))


def ends_with_equal(text: str, expected: str) -> bool:
    """Whether the last formula or number of a text without a marked answer equals `expected`."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    anywhere = (LatexExtractionConfig(boxed_match_priority=0), ExprExtractionConfig())
    return _equal(
        parse(with_powers_of_ten(text[-TAIL:].replace("\\$", "")), anywhere, parsing_timeout=None), _parsed(expected)
    )


def _parsed(answer: str) -> list[Any]:
    # Imported on first use: sympy takes half a second and 60 MB that `exact` does not need.
    from math_verify import LatexExtractionConfig, parse

    # An answer is boxed again and parsed as a whole. By default a box that cannot be parsed would be replaced by any
    # fraction or number inside it, and half an answer would be accepted.
    box = (LatexExtractionConfig(boxed_match_priority=0, try_extract_without_anchor=False),)
    latex = as_latex(answer.replace("\\$", "").replace("$", ""))
    parsed: list[Any] = parse(f"\\boxed{{{latex}}}", box, parsing_timeout=None)
    return parsed


def _equal(found: list[Any], wanted: list[Any]) -> bool:
    from math_verify import verify

    def equal(value: Any, expected: Any) -> bool:
        parts = _parts(value, expected)
        if parts is not None:
            return all(equal(*pair) for pair in parts)
        same = _same_value(value, expected)
        if same is not None:
            return same
        # With sets given as inequalities: `x > 2` for `(2, \infty)`.
        return bool(verify(expected, value, allow_set_relation_comp=True, timeout_seconds=None))

    return any(equal(value, expected) for expected in filter(_has_value, wanted) for value in filter(_has_value, found))


def _parts(value: Any, expected: Any) -> list[tuple[Any, Any]] | None:
    """The elements of two tuples, intervals or matrices of the same shape, in pairs; None for others."""
    from sympy import Interval, MatrixBase, Tuple

    if isinstance(value, Interval) and isinstance(expected, Interval):
        if (value.left_open, value.right_open) != (expected.left_open, expected.right_open):
            return None
        return [(value.start, expected.start), (value.end, expected.end)]
    if isinstance(value, MatrixBase) and isinstance(expected, MatrixBase) and value.shape == expected.shape:
        return list(zip(value.flat(), expected.flat(), strict=True))
    if isinstance(value, Tuple) and isinstance(expected, Tuple) and len(value) == len(expected):
        return list(zip(value, expected, strict=True))
    return None


def _same_value(value: Any, expected: Any) -> bool | None:
    """Whether two formulas have the same values where their letters are positive; None if that does not tell.

    math-verify calls any two values equal that differ by less than 1e-15, however small they are.
    """
    from sympy import Abs, Expr, Float, Integral, Product, Sum, UnevaluatedExpr, ceiling, floor
    from sympy.core.function import AppliedUndef

    if not isinstance(value, Expr) or not isinstance(expected, Expr):
        return None
    formulas = [_with_constants(value), _with_constants(expected)]
    names = [sorted(letter.name for letter in formula.free_symbols) for formula in formulas]
    unknown = (UnevaluatedExpr, AppliedUndef, Sum, Product, Integral, *((Abs, floor, ceiling) if names[0] else ()))
    if names[0] != names[1] or any(formula.has(*unknown) for formula in formulas):
        return None
    has_decimals = value.has(Float) or expected.has(Float)
    for shift in range(len(_POINTS) if names[0] else 1):
        numbers = [_number(formula, names[0], shift) for formula in formulas]
        if numbers[0] is None or numbers[1] is None:
            return None
        if not _close(numbers[0], numbers[1], has_decimals):
            return False
    if not names[0] and not has_decimals and abs(numbers[0]) > LARGE:
        return _is_zero(formulas[0] - formulas[1], numbers[0])
    # A root on one side only, as in `\sqrt{x^2}` and `x`, hides the sign of the letter.
    return True if not names[0] or _has_root(formulas[0]) == _has_root(formulas[1]) else None


def _with_constants(formula: Any) -> Any:
    """The formula with `i` and `e` as numbers, which the parser takes for letters in some places."""
    from sympy import E, I

    return formula.xreplace(
        {letter: {"i": I, "e": E}[letter.name] for letter in formula.free_symbols if letter.name in {"i", "e"}}
    )


def _number(formula: Any, names: list[str], shift: int) -> Any:
    """The formula's value in 30 digits, with `names` at the points from number `shift`; None if it has none."""
    from sympy import Float

    at = {
        letter: Float(_POINTS[(names.index(letter.name) + shift) % len(_POINTS)], 30) + names.index(letter.name)
        for letter in formula.free_symbols
    }
    number = formula.evalf(30, subs=at)
    return number if number.is_number and number.is_finite and number.is_comparable is not None else None


def _close(value: Any, expected: Any, has_decimals: bool) -> bool:
    difference, size = abs(value - expected), max(abs(value), abs(expected))
    if difference <= (DECIMAL if has_decimals else EXACT) * size:
        return True
    return has_decimals and bool(difference <= ROUNDED[0] and difference <= ROUNDED[1] * size)


def _is_zero(difference: Any, size: Any) -> bool:
    """Whether two values of this size do not differ by a whole number, as `10^{100}` and `10^{100}+1` do."""
    from sympy import log

    digits = min(int(log(abs(size), 10).evalf()) + 10, MAX_DIGITS)
    return bool(abs(difference.evalf(2, maxn=digits)) < 0.5)


def _has_root(formula: Any) -> bool:
    from sympy import Pow, log

    return formula.has(log) or any(not power.exp.is_integer for power in formula.atoms(Pow))


def _has_value(parsed: Any) -> bool:
    """False where sympy found no value, which compares equal to many others: `\\gamma(x-1)` is read as a pole."""
    from sympy import nan, zoo

    return isinstance(parsed, str) or not parsed.has(zoo, nan)
