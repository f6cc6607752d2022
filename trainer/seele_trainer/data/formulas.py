"""Find the formulas in a text that have the value of an answer, such as `b/a` for `\\frac{b}{a}`.

A formula is evaluated at one point in floating point, without a computer algebra system: a data set has millions of them.
What this cannot read (functions, sums, matrices) is not found.
"""

import math
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache

from seele_trainer.verify.spelling import as_latex

MAX_LENGTH = 120
"""Characters of the longest formula that is evaluated."""

_PIECE = re.compile(r"[^=<>\n$,;:?!≈。，]+")
_WORDS = re.compile(
    r"(?<![\\a-zA-Z])(?!(?:sqrt|pi)\b)[a-zA-Z]{2,}(?![a-zA-Z])|[^\x00-\x7f√∛½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞π²³×⋅·÷−]|\\text\b"
)
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d+)?)|(?P<command>\\[a-zA-Z]+)|(?P<letter>[a-zA-Z](?:_\{?\w\}?)?)|(?P<sign>\S))"
)
_UNIT = re.compile(r"\s[a-zA-Z]$")
_IGNORED = re.compile(r"\\(?:left|right)(?![a-zA-Z])|\\[!,;: ]")


def formulas_of_value(text: str, answer: str) -> Iterator[tuple[int, int]]:
    """Spans of formulas in `text` with the value of `answer`; none if `answer` cannot be read."""
    wanted = value_at_a_point(answer)
    if wanted is None:
        return
    for piece in _PIECE.finditer(text):
        start = piece.start()
        for word in (*_WORDS.finditer(piece.group()), None):
            end = piece.start() + word.start() if word else piece.end()
            part = text[start:end].strip().rstrip(".")
            # The last letter may be a unit: `3√5 m`.
            if any(_is_close(value_at_a_point(read), wanted) for read in (part, _UNIT.sub("", part))):
                begin = text.index(part, start)
                yield begin, begin + len(part)
            start = piece.start() + word.end() if word else end


def _is_close(value: float | None, wanted: float) -> bool:
    return value is not None and math.isclose(value, wanted, rel_tol=1e-9)


@lru_cache(maxsize=4096)
def value_at_a_point(formula: str) -> float | None:
    """The value of a formula where each letter is a fixed number; None if it cannot be read."""
    if not formula or len(formula) > MAX_LENGTH:
        return None
    tokens = [match.group().strip() for match in _TOKEN.finditer(_IGNORED.sub("", as_latex(formula)))]
    reader = _Reader(tokens)
    try:
        value = reader.sum()
    except (ArithmeticError, ValueError, IndexError):
        return None
    return value if reader.at_end and isinstance(value, float) and math.isfinite(value) else None


class _Reader:
    """A recursive-descent reader of sums, products, fractions, powers and roots. Raises ValueError for anything else."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def at_end(self) -> bool:
        """Whether every token was read."""
        return self._at == len(self._tokens)

    def sum(self) -> float:
        """A sum of products, up to a closing bracket or the end."""
        negative = self._take("-") or (self._take("+") and False)
        total = -self._product() if negative else self._product()
        while not self.at_end and self._tokens[self._at] in "+-":
            sign = 1 if self._take("+") else -int(self._take("-"))
            total += sign * self._product()
        return total

    def _product(self) -> float:
        value = self._power()
        while not self.at_end and self._tokens[self._at] not in ("+", "-", ")", "}", "]"):
            if self._take("/"):
                value /= self._power()
            else:
                mixed = self._tokens[self._at - 1].isdigit() and self._tokens[self._at] in (
                    r"\frac",
                    r"\dfrac",
                    r"\tfrac",
                )
                _ = self._take("*") or self._take(r"\cdot") or self._take(r"\times")
                value = value + self._power() if mixed else value * self._power()
        return value

    def _power(self) -> float:
        value = self._atom()
        if self._take("^"):
            raised = value ** self._argument()
            if isinstance(raised, complex):
                raise ValueError("not real")
            return float(raised)
        return value

    def _atom(self) -> float:
        token = self._next()
        if token[0].isdigit():
            return float(token)
        if token in ("(", "{", "["):
            value = self.sum()
            self._next()
            return value
        if token in (r"\frac", r"\dfrac", r"\tfrac"):
            return self._argument() / self._argument()
        if token == r"\sqrt":
            degree = self._argument() if self._tokens[self._at] == "[" else 2.0
            return float(math.pow(self._argument(), 1 / degree))
        if token == r"\pi":
            return math.pi
        if token[0].isalpha():
            # Any number between 1 and 2 that depends on the letter alone.
            return 1 + zlib.crc32(token.encode()) / 2**32
        raise ValueError(token)

    def _argument(self) -> float:
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
