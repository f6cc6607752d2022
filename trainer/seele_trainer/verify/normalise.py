"""Answers as normalised text and as numbers, so that two spellings of the same answer compare equal."""

import re
from decimal import Decimal, InvalidOperation

from seele_trainer.verify.spelling import without_unicode

NUMBER = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!\s?)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
"""A number as people write it, without its sign: digits with or without thousands separators and decimals."""

_SEPARATORS = re.compile(r"\{,\}|\\!|\\,|,|\s")
_WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|operatorname|boldsymbol|mbox|hbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\(?:[!,;:> ]|left(?![a-z])|right(?![a-z])|displaystyle|quad|qquad)|[{}$\s~]")
_PLAIN_NUMBER = re.compile(
    rf"([-+−]?)\s*\\?\$?\s*([-+−]?)({NUMBER}|\d+(?:\.\d*)?[eE][-+]?\d{{1,4}})\s*(?:\\?%|\^?\{{?\\circ\}}?)?\.?"
)
_PARENTHESES = re.compile(r"^\(([^(),]*)\)$")
"""Around one number; `(1,200)` is a point."""
_NAME = re.compile(
    r"\\(?:overline|triangle|angle|overrightarrow|vec|widehat|odot)\s*(?:\{\s*([A-Z]{1,4})\s*\}|([A-Z]{1,4})(?![a-zA-Z]))"
)
"""A segment, triangle, angle or vector, which is also written without its sign."""
_LEADING = re.compile(r"^(?:[a-zA-Z]\w*(?:\s*\([a-zA-Z]\))?)\s*(?:=|\\in)\s*(?=[^=]+$)")


def unwrapped(text: str) -> str:
    """The text without dollar signs around it, `\\text{}` commands and a closing full stop."""
    text = _WRAPPER.sub(r"\1", text.strip())
    text = text.removesuffix(".").strip()
    if len(text) > 1 and text[0] == text[-1] == "$":
        text = text[1:-1].strip()
    return text


def right_hand_side(text: str) -> str:
    """The part after `x =`, `f(x) =` or `x \\in` in an answer with one equals sign; otherwise the text itself."""
    return _LEADING.sub("", text)


def number_value(text: str) -> Decimal | None:
    """The value of a text that is one number, optionally with a currency, percent or degree sign; otherwise None.

    A percent sign is dropped, not applied: `50%` is 50.
    """
    match = _PLAIN_NUMBER.fullmatch(_PARENTHESES.sub(r"\1", unwrapped(text)).replace("\\$", "$").replace("−", "-"))
    if match is None:
        return None
    outer, inner, digits = match.groups()
    try:
        value = Decimal(_SEPARATORS.sub("", digits))
    except InvalidOperation:
        return None
    return -value if (outer == "-") != (inner == "-") else value


def normalised(text: str) -> str:
    """The text without whatever does not change its meaning: spaces, braces, `$`, `\\left`, the size of fractions.

    A single number becomes its plain decimal form, so that `1,000.0` and `1000` are the same text.
    """
    text = right_hand_side(unwrapped(without_unicode(text)))
    value = number_value(text)
    if value is not None and abs(value.adjusted()) < 50:
        plain = format(value, "f")
        plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
        return "0" if plain in {"-0", ""} else plain
    text = _NAME.sub(r"\1\2", re.sub(r"\\[dt]frac", r"\\frac", text))
    # `\pi r` must not become `\pir`, which would be another command, so mark the end of a command before a letter.
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", r"\1|", text)
    text = text.replace("\\varnothing", "\\emptyset")
    return _SPACING.sub("", text).replace("^\\circ", "")


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
