"""Answers as normalised text and as numbers, so that two spellings of the same answer compare equal."""

import re
from decimal import Decimal, InvalidOperation

from seele_trainer.verify.spelling import without_unicode

NUMBER = r"(?:\d{1,3}(?:(?:,|\{,\}|\\,|\\!,|,\\!\s?)\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
"""A number as people write it, without its sign: digits with or without thousands separators and decimals."""

_SEPARATORS = re.compile(r"\{,\}|\\!|\\,|[,'\s]|\.(?=\d{3}\.)|(?<=\.\d{3})\.(?=\d{3}$)")
_GROUPED = r"\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:\.\d+)?|\d{1,3}(?:'\d{3})+(?:\.\d+)?|\d{1,3}(?:\.\d{3}){2,}"
"""Other separators of thousands; `12 000` in a text may be two numbers, and a whole answer is one."""
_WRAPPER = re.compile(r"\\(?:text|mathrm|mathbf|textbf|textit|mathit|operatorname|boldsymbol|mbox|hbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\(?:[!,;:> ]|left(?![a-z])|right(?![a-z])|displaystyle|quad|qquad)|[$~]|(?<!\d)\s|\s(?!\s*\d)")
"""What can be removed without a change; not the space of `1 1/4`."""
_ONE_SIGN = re.compile(r"(?<!\\)\{([\w,])\}|(?<=_)\{(\d+)\}|^\{([^{}]*)\}$")
"""Braces around one character, an index or everything; those of `2^{n+1}` stay."""
_PLAIN_NUMBER = re.compile(
    rf"([-+−]?)\s*\\?\$?\s*([-+−]?)({_GROUPED}|{NUMBER}|\d+(?:\.\d*)?[eE][-+]?\d{{1,4}})\s*(?:\\?%|\^?\{{?\\circ\}}?)?\.?"
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
    text = _SPACING.sub("", text.replace("\\neq", "\\ne"))
    while (shorter := _ONE_SIGN.sub(r"\1\2\3", text)) != text:
        text = shorter
    return text.replace("^\\circ", "")


_DECORATION = re.compile(
    r"\\(?:tiny|small|large|Large|LARGE|huge|Huge|bf|it|rm|displaystyle|textstyle|limits|underline|bm|checkmark"
    r"|(?:text)?color\s*\{[^{}]*\})(?![a-zA-Z])\s*|\\math(?:bf|rm|it)\s+(?=[\w(])|(?<!\\)\\[()\[\]]|^\*\*|\*\*$|`"
)
_INTRODUCTION = re.compile(
    r"(\\text\s*\{)?\s*(?:(?:so\s|the\s|our\s|final\s|correct\s)*"
    r"(?:(?:option|choice)\s+(?=\(?[A-H]\b)|(?:answer|result|solution|value)\s*(?:is\s|are\s|equals\s|=|:)\s*:?)"
    r"|(?:an?|the)\s+(?=[a-z]{3})|\\approx|≈|=)\s*(\}(?=.))?",
    re.IGNORECASE,
)
_MEANINGS = {
    "\\mathbb{R}": ("all real numbers", "all reals", "real numbers", "any real number", "x is any real number"),
    "\\emptyset": (
        "no solution",
        "no solutions",
        "no real solutions",
        "no real solution",
        "empty set",
        "none",
        "no such x",
    ),
    "\\text{does not exist}": ("dne", "undefined", "not exist"),
}
_MEANING = {words: meaning for meaning, spellings in _MEANINGS.items() for words in spellings}


_DECIMAL_COMMA = re.compile(r"([-−]?\d{1,3}(?:\.\d{3})*|[-−]?\d+),(\d+)")


def with_decimal_point(text: str) -> str:
    """`1.234,5` as 1234.5; any other text, also `1,234`, as it is."""
    comma = _DECIMAL_COMMA.fullmatch(unwrapped(text))
    return f"{comma[1].replace('.', '')}.{comma[2]}" if comma and number_value(text) is None else text


def undecorated(text: str) -> str:
    """The answer without fonts, colours, bold type and `the answer is`, and with `all real numbers` as a symbol."""
    text = _DECORATION.sub("", text).strip().rstrip(",;").removesuffix("\\").strip()
    if introduction := _INTRODUCTION.match(text):
        text = ("" if introduction[2] else introduction[1] or "") + text[introduction.end() :].strip()
    if wrapped := _WRAPPER.fullmatch(text):
        text = wrapped[1].strip()
    return _MEANING.get(_WRAPPER.sub(r"\1", text).strip(" .").lower(), text)


_LESS = r"(?:\\leq?(?:slant)?(?![a-z])|\\lt(?![a-z])|<=?)"
_GREATER = r"(?:\\geq?(?:slant)?(?![a-z])|\\gt(?![a-z])|>=?)"
_LETTER = r"\s*(\\?[a-zA-Z]+(?:_\w)?(?:\(x\))?)\s*"
_BOUND = r"([^<>=]*?[^<>=\s\\])"
_BETWEEN = re.compile(rf"\s*{_BOUND}\s*({_LESS}){_LETTER}({_LESS})\s*{_BOUND}\s*")
_BETWEEN_REVERSED = re.compile(rf"\s*{_BOUND}\s*({_GREATER}){_LETTER}({_GREATER})\s*{_BOUND}\s*")
_ABOVE = re.compile(rf"{_LETTER}({_GREATER})\s*{_BOUND}\s*")
_BELOW = re.compile(rf"{_LETTER}({_LESS})\s*{_BOUND}\s*")
_ABSOLUTE = re.compile(rf"\s*(?:\\left)?\|{_LETTER}(?:\\right)?\|\s*({_LESS}|{_GREATER})\s*{_BOUND}\s*")
_SET_OF = re.compile(r"\\\{\s*\w+(?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*(?:\\mid|\\vert|:|\|)(.*)\\\}")
_REVERSED_BRACKETS = re.compile(r"\s*\]([^\[\]]*,[^\[\]]*)\[\s*")
_AND = re.compile(r"\\text\s*\{\s*and\s*\}|\\(?:land|wedge)(?![a-z])|\band\b")
_INEQUALITY = re.compile(rf"{_LESS}|{_GREATER}")
_REVERSED = re.compile(rf"\s*{_BOUND}\s*({_LESS}|{_GREATER}){_LETTER}")
_LESS_SIGN = re.compile(_LESS)
_OR = re.compile(r"\\text\s*\{\s*or\s*\}|\\(?:lor|vee)(?![a-z])|\bor\b")


def is_inequality(text: str) -> bool:
    """Whether the text has a `<`, `\\le`, `>` or `\\ge`."""
    return _INEQUALITY.search(text) is not None


def as_interval(text: str) -> str:
    """Inequalities of one letter, and sets that they describe, as an interval or a union; any other text as it is."""
    text = without_unicode(text)
    if described := _SET_OF.fullmatch(text.strip()):
        text = described[1]
    if reversed_brackets := _REVERSED_BRACKETS.fullmatch(text):
        return f"({reversed_brackets[1]})"
    intervals = [_interval(part) for part in _OR.split(text)]
    return "\\cup".join(interval for interval in intervals if interval) if all(intervals) else text


def _interval(inequality: str) -> str | None:
    if len(both := _AND.split(inequality)) == 2:
        ends = [re.match(r"(.)(.*),(.*)(.)$", _interval(part) or "") for part in both]
        from_here = [end for end in ends if end and end[3] == "\\infty"]
        to_here = [end for end in ends if end and end[2] == "-\\infty"]
        return f"{from_here[0][1]}{from_here[0][2]},{to_here[0][3]}{to_here[0][4]}" if from_here and to_here else None
    if match := _ABSOLUTE.fullmatch(inequality):
        *_, sign, bound = match.groups()
        if _LESS_SIGN.match(sign):
            inequality = f"-{bound}{sign}x{sign}{bound}"
        else:
            closed = _is_closed(sign)
            return f"(-\\infty,-{bound}{'])'[not closed]}\\cup{'[('[not closed]}{bound},\\infty)"
    if match := _BETWEEN.fullmatch(inequality):
        low, above, _, below, high = match.groups()
    elif match := _BETWEEN_REVERSED.fullmatch(inequality):
        high, below, _, above, low = match.groups()
    elif match := _ABOVE.fullmatch(inequality):
        (_, above, low), below, high = match.groups(), "<", "\\infty"
    elif match := _BELOW.fullmatch(inequality):
        (_, below, high), above, low = match.groups(), "<", "-\\infty"
    elif match := _REVERSED.fullmatch(inequality):
        bound, sign, letter = match.groups()
        mirrored = ">" if _LESS_SIGN.match(sign) else "<"
        return _interval(f"{letter}{mirrored}{'=' * _is_closed(sign)}{bound}")
    else:
        return None
    return f"{'[' if _is_closed(above) else '('}{low},{high}{']' if _is_closed(below) else ')'}"


def _is_closed(sign: str) -> bool:
    return "=" in sign or "e" in sign
