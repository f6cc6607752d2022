"""Evaluate a formula at one point, exactly where it has only rational numbers, without a computer algebra system.

What this cannot read (functions, sums, sets, equations) has no value here. Letters are random rational numbers, so two rational
functions with one value are the same function.
"""

import math
import re
import zlib
from fractions import Fraction
from functools import lru_cache
from typing import TypeAlias

from seele_trainer.verify.spelling import as_latex

MAX_LENGTH = 120
"""Characters of the longest formula that is evaluated."""

MAX_BITS = 20_000
"""Size of the largest power that is computed exactly, in bits."""

MAX_FACTORIAL = 100

CERTAIN = 1e-4
"""Two values in floating point that differ by this share are different, even if one of them was rounded."""

Value: TypeAlias = Fraction | float

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\[a-zA-Z]+)|(?P<letter>[a-zA-Z](?:_\{?\w\}?)?)|(?P<sign>\S))"
)
_IGNORED = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[!,;: ]")
_UNCLEAR = re.compile(r"/\s*(?:\d[\d.]*\s*[a-zA-Z(#]|[a-zA-Z]\s*[a-zA-Z(#])|[a-zA-Z]{4,}|[%ieI]")
"""Formulas that people read in two ways (`1/2x`), words, percentages, and `i` and `e`, which stand for constants."""
_NOT_LINEAR = re.compile(
    r"[\^(]|[a-zA-Z)}\d]\s*[*/]\s*[a-zA-Z(]|(?<![\\a-zA-Z])[a-zA-Z]\s*[a-zA-Z]|\}\s*\{[^{}]*[a-zA-Z]|\\cdot|\\sqrt"
)
_COMMANDS = re.compile(r"\\[a-zA-Z]+")
_RATIO = re.compile(r"^\s*(\d+)\s*:\s*(\d+)\s*$")
_FRACTIONS = (r"\frac", r"\dfrac", r"\tfrac")


@lru_cache(maxsize=4096)
def value_at_a_point(formula: str, point: str = "") -> Value | None:
    """The value of a formula where each letter is a fixed number between 1 and 2; None if it cannot be read.

    Another name of the `point` gives other numbers.
    """
    if not formula or len(formula) > MAX_LENGTH:
        return None
    tokens = [match.group().strip() for match in _TOKEN.finditer(_IGNORED.sub("", as_latex(formula)))]
    reader = _Reader(tokens, point)
    try:
        value = reader.sum()
        return value if reader.at_end and math.isfinite(value) else None
    except (ArithmeticError, ValueError, IndexError):
        return None


def is_same_value(value: Value, other: Value) -> bool:
    """Whether two values are equal, in floating point up to rounding."""
    exact = isinstance(value, Fraction) and isinstance(other, Fraction)
    return value == other if exact else math.isclose(value, other, rel_tol=1e-9)


def equal_by_value(answer: str, expected: str) -> bool | None:
    """Whether two formulas are the same function; None if that takes a computer algebra system."""
    texts = [_RATIO.sub(r"\1/\2", as_latex(text)) for text in (answer, expected)]
    if any(_UNCLEAR.search(_COMMANDS.sub("#", text)) for text in texts):
        return None
    value, wanted = value_at_a_point(texts[0]), value_at_a_point(texts[1])
    if value is None or wanted is None:
        return None
    exact = isinstance(value, Fraction) and isinstance(wanted, Fraction)
    if exact and (value == wanted or "." not in answer + expected):
        return value == wanted
    return None if math.isclose(value, wanted, rel_tol=CERTAIN) else False


def equal_as_equations(answer: str, expected: str) -> bool | None:
    """Whether two equations are multiples of each other; None if they are not and one of them may not be linear."""
    sides = [as_latex(text).split("=") for text in (answer, expected)]
    if any(len(parts) != 2 or _UNCLEAR.search(_COMMANDS.sub("#", "=".join(parts))) for parts in sides):
        return None
    differences = []
    for left, right in sides:
        for point in ("", "another"):
            values = value_at_a_point(left, point), value_at_a_point(right, point)
            if not (isinstance(values[0], Fraction) and isinstance(values[1], Fraction)):
                return None
            differences.append(values[0] - values[1])
    first, second, wanted, wanted_second = differences
    if first * wanted_second == second * wanted and 0 not in differences:
        return True
    return None if any(_NOT_LINEAR.search(text) for text in (answer, expected)) else False


class _Reader:
    """A recursive-descent reader of sums, products, fractions, powers and roots. Raises ValueError for anything else."""

    def __init__(self, tokens: list[str], point: str) -> None:
        self._tokens = tokens
        self._point = point
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether every token was read."""
        return self._at == len(self._tokens)

    def sum(self) -> Value:
        """A sum of products, up to a closing bracket or the end."""
        negative = self._take("-") or (self._take("+") and False)
        total = -self._product() if negative else self._product()
        while not self.at_end and self._tokens[self._at] in "+-":
            sign = 1 if self._take("+") else -int(self._take("-"))
            total += sign * self._product()
        return total

    def _product(self) -> Value:
        value = self._power()
        while not self.at_end and self._tokens[self._at] not in ("+", "-", ")", "}", "]"):
            if self._take("/"):
                value /= self._power()
            else:
                mixed = self._tokens[self._at - 1].isdigit() and self._tokens[self._at] in _FRACTIONS
                _ = self._take("*") or self._take(r"\cdot") or self._take(r"\times")
                value = value + self._power() if mixed else value * self._power()
        return value

    def _power(self) -> Value:
        value = self._atom()
        while self._take("!"):
            if value not in range(MAX_FACTORIAL + 1):
                raise ValueError("no factorial")
            value = Fraction(math.factorial(round(value)))
        return _raised(value, self._argument()) if self._take("^") else value

    def _atom(self) -> Value:
        token = self._next()
        if token[0].isdigit() or token[0] == ".":
            return Fraction(token)
        if token in ("(", "{", "["):
            value = self.sum()
            self._next()
            return value
        if token in _FRACTIONS:
            return self._argument() / self._argument()
        if token == r"\sqrt":
            degree = self._argument() if self._tokens[self._at] == "[" else Fraction(2)
            return math.pow(self._argument(), 1 / degree)
        if token == r"\pi":
            return math.pi
        if token[0].isalpha():
            # Any number between 1 and 2 that depends on the letter alone.
            return 1 + Fraction(zlib.crc32((token + self._point).encode()), 2**32)
        raise ValueError(token)

    def _argument(self) -> Value:
        token = self._tokens[self._at]
        if token.isdigit() and len(token) > 1:
            # LaTeX takes one digit: `\frac12` is one half.
            self._tokens[self._at : self._at + 1] = [token[0], token[1:]]
        return self._atom()

    def _take(self, token: str) -> bool:
        found = not self.at_end and self._tokens[self._at] == token
        self._at += found
        return found

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at += 1
        return token


def _raised(value: Value, exponent: Value) -> Value:
    if isinstance(value, Fraction) and exponent == round(exponent):
        bits = value.numerator.bit_length() + value.denominator.bit_length()
        if abs(float(exponent)) * bits > MAX_BITS:
            raise ValueError("too large")
        power: Fraction = value ** round(exponent)
        return power
    raised = float(value) ** float(exponent)
    if isinstance(raised, complex):
        raise ValueError("not real")
    return float(raised)
