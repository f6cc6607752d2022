"""Inequalities as intervals: `0 < x \\le 1` is `(0,1]`."""

from __future__ import annotations

import re

_LESS = r"(?:\\leq?(?:slant)?(?![a-z])|\\lt(?![a-z])|<=?)"
_GREATER = r"(?:\\geq?(?:slant)?(?![a-z])|\\gt(?![a-z])|>=?)"
_LETTER = r"\s*(\\?[a-zA-Z]+(?:_\w)?(?:\(x\))?)\s*"
_BOUND = r"([^<>=]*?[^<>=\s\\])"
_BETWEEN = re.compile(rf"\s*{_BOUND}\s*({_LESS}){_LETTER}({_LESS})\s*{_BOUND}\s*")
_BETWEEN_REVERSED = re.compile(rf"\s*{_BOUND}\s*({_GREATER}){_LETTER}({_GREATER})\s*{_BOUND}\s*")
_ABOVE = re.compile(rf"{_LETTER}({_GREATER})\s*{_BOUND}\s*")
_BELOW = re.compile(rf"{_LETTER}({_LESS})\s*{_BOUND}\s*")
_INEQUALITY = re.compile(rf"{_LESS}|{_GREATER}")
_OR = re.compile(r"\\text\s*\{\s*or\s*\}|\\(?:lor|vee)(?![a-z])|\bor\b")


def is_inequality(text: str) -> bool:
    """Whether the text has a `<`, `\\le`, `>` or `\\ge`."""
    return _INEQUALITY.search(text) is not None


def as_interval(text: str) -> str:
    """Inequalities of one letter as an interval or a union of them; any other text as it is."""
    intervals = [_interval(part) for part in _OR.split(text)]
    return "\\cup".join(interval for interval in intervals if interval) if all(intervals) else text


def _interval(inequality: str) -> str | None:
    if match := _BETWEEN.fullmatch(inequality):
        low, above, _, below, high = match.groups()
    elif match := _BETWEEN_REVERSED.fullmatch(inequality):
        high, below, _, above, low = match.groups()
    elif match := _ABOVE.fullmatch(inequality):
        (_, above, low), below, high = match.groups(), "<", "\\infty"
    elif match := _BELOW.fullmatch(inequality):
        (_, below, high), above, low = match.groups(), "<", "-\\infty"
    else:
        return None
    return f"{'[' if _is_closed(above) else '('}{low},{high}{']' if _is_closed(below) else ')'}"


def _is_closed(sign: str) -> bool:
    return "=" in sign or "e" in sign
