"""Rewrite an answer as LaTeX that a parser reads: Unicode signs, Python's operators, mixed numbers, number words."""

import re
import unicodedata
from collections.abc import Callable

from seele_trainer.verify.words import fractions_in_words, value_of_words

_GREEK = """alpha beta gamma delta epsilon zeta eta theta kappa lambda mu nu xi rho sigma tau phi chi psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega"""
_SIGNS = {
    **dict.fromkeys("−–—", "-"),
    **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
    "π": "\\pi ",
    "∞": "\\infty ",
    "°": "^\\circ ",
    "×": "\\times ",
    "⋅": "\\cdot ",
    "·": "\\cdot ",
    **dict.fromkeys("÷⁄", "/"),
    **dict.fromkeys("′’", "'"),
    "…": "\\ldots ",
    "∶": ":",
    "≤": "\\le ",
    "⩽": "\\le ",
    "≥": "\\ge ",
    "⩾": "\\ge ",
    "≠": "\\ne ",
    "±": "\\pm ",
    "∪": "\\cup ",
    "∩": "\\cap ",
    "∈": "\\in ",
    "∅": "\\emptyset ",
    "ℝ": "\\mathbb{R}",
    "ℤ": "\\mathbb{Z}",
    "ℚ": "\\mathbb{Q}",
    "ℕ": "\\mathbb{N}",
    "ℂ": "\\mathbb{C}",
    "√": "\\sqrt",
    "∛": "\\sqrt[3]",
    "∜": "\\sqrt[4]",
    "△": "\\triangle ",
    "∠": "\\angle ",
} | {
    letter: f"\\{name} "
    for letter, name in zip(
        "αβγδεζηθκλμνξρστφχψωΓΔΘΛΞΠΣΦΨΩ",
        _GREEK.split(),
        strict=True,
    )
}
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n")
_LOWERED = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_POWER = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ]+")
_INDEX = re.compile("[₀₁₂₃₄₅₆₇₈₉]+")
_ROOT_OF_ONE = re.compile(r"(\\sqrt(?:\[\d\])?)\s*(\d+(?:\.\d+)?|[a-zA-Z])")
_ROOT = re.compile(r"\\?(?<![a-zA-Z])sqrt\s*\(")
_NAMES = re.compile(
    r"(?<![a-zA-Z\\])(pi|sin|cos|tan|sec|csc|cot|log|ln|exp|arcsin|arccos|arctan|alpha|beta|gamma|theta)(?![a-zA-Z])"
)
_INFINITY = re.compile(r"(?<![a-zA-Z\\])(?:infinity|inf|oo)(?![a-zA-Z])", re.IGNORECASE)
_SCIENTIFIC = re.compile(r"(?<![a-zA-Z\d.])(\d+(?:\.\d+)?)[eE]([+-]?\d+)(?![a-zA-Z\d.])")
_EXPONENT = re.compile(r"\^\s*(-\d+|\d{2,}(?![\d.])|\([^()]*\))")
_MIXED = re.compile(r"(?<![\w./^}])(\d+)(?:\s+|\s*\\[ ,;:]\s*|\s+and\s+)(\d+)\s*/\s*(\d+)(?![\d/])")
_REPEATING = re.compile(
    r"(?<!\d)(\d{0,20})\.(\d{0,20}?)(?:\\overline\s*\{\s*(\d+)\s*\}|\\dot\s*\{?(\d)\}?(?:(\d*)\\dot\s*\{?(\d)\}?)?"
    r"|(\d{1,20}?)\7+\s*(?:\.\.\.|\\[lc]?dots))"
)
_DEGREES = r"(?<![\d.])(\d+(?:\.\d+)?)\s*(?:\^\s*\{?\\circ\}?|\\degree)"


def _repeating(match: re.Match[str]) -> str:
    whole, before, *period = (group or "" for group in match.groups())
    digits = "".join(period)
    nines = "9" * len(digits) + "0" * len(before)
    return f"\\frac{{{int(whole + before + digits) - int(whole + before or '0')}}}{{{nines}}}"


_REWRITTEN: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (_REPEATING, _repeating),
    (re.compile(rf"(\\?(?:sin|cos|tan|cot|sec|csc))\s*\(?\s*{_DEGREES}\s*\)?"), r"\1{\\frac{\2\\pi}{180}}"),
    (
        re.compile(rf"{_DEGREES}\s*(\d+)\s*(?:'|\^\s*\{{?\\prime\}}?)(?:\s*(\d+)\s*(?:''|\"))?"),
        lambda angle: f"{float(angle[1]) + int(angle[2]) / 60 + int(angle[3] or 0) / 3600:.12g}",
    ),
    (re.compile(r"(?<=\d)\s*(?:\\text\s*\{\s*to\s*\}|\bto\b)\s*(?=\d)"), ":"),
    (re.compile(r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\lg(?![a-z])"), r"\\log_{10}"),
    (re.compile(r"(?<![a-zA-Z\\])(?:abs\(([^()]*)\))"), r"|\1|"),
    (re.compile(r"(?<![a-zA-Z\\])(floor|ceil)\(([^()]*)\)"), r"\\l\1 \2\\r\1 "),
    (re.compile(r"(?<![a-zA-Z\\_^}])C\((\d+),\s*(\d+)\)"), r"\\binom{\1}{\2}"),
    (re.compile(r"(?<=\d)\s+x\s+(?=10\s*(?:\^|\*\*))"), r"\\times "),
    (re.compile(r"\\\\\s*\[[\d.]+\s*[a-z]{2}\]"), r"\\\\"),
    (re.compile(r"\\sqrt\s*(\d{2,})"), r"\\sqrt{\1}"),
)
"""Spellings that a parser does not read, or reads otherwise than people do, and what they mean."""
_EMPTY_SET = re.compile(r"\\varnothing|\\\{\s*\\?\s*\\\}")


def without_unicode(text: str) -> str:
    """The text with mathematical Unicode signs as LaTeX, and digits of any script as ASCII digits."""
    if text.isascii():
        return text
    text = _POWER.sub(lambda power: f"^{{{power.group().translate(_RAISED)}}}", text)
    text = _INDEX.sub(lambda index: f"_{{{index.group().translate(_LOWERED)}}}", text)
    text = _ROOT_OF_ONE.sub(r"\1{\2}", "".join(map(_ascii, text)))
    return text.replace("\\sqrt(", "sqrt(").replace("sqrt(", "\\sqrt(")


def _ascii(character: str) -> str:
    if character in _SIGNS:
        return _SIGNS[character]
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.digit(character))
    compatible = unicodedata.normalize("NFKC", character)
    numerator, slash, denominator = compatible.partition("\N{FRACTION SLASH}")
    return f"\\frac{{{numerator}}}{{{denominator}}}" if slash else compatible


def as_latex(answer: str) -> str:
    """The answer in LaTeX: `sqrt(2)`, `x**2`, `pi/2`, `6e3`, `1 1/4` and `twelve` are rewritten, the rest is kept."""
    text = without_unicode(answer).strip()
    number = value_of_words(text)
    if number is not None:
        return str(number)
    if len(text) < 80 and (share := next(fractions_in_words(text), None)) is not None and share[:2] == (0, len(text)):
        return f"\\frac{{{share[2].numerator}}}{{{share[2].denominator}}}"
    for pattern, rewritten in _REWRITTEN:
        text = pattern.sub(rewritten, text)
    text = _EMPTY_SET.sub(r"\\emptyset ", text)
    text = _with_braces(text)
    text = _INFINITY.sub(r"\\infty ", _NAMES.sub(r"\\\1 ", text))
    text = with_powers_of_ten(text.replace("**", "^"))
    text = _EXPONENT.sub(lambda power: f"^{{{power.group(1)}}}", text)
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    return re.sub(r"\+\s*-", "-", text)


def with_powers_of_ten(text: str) -> str:
    r"""The text with `6e3` as `6\times 10^{3}`."""
    return _SCIENTIFIC.sub(r"\1\\times 10^{\2}", text)


def _with_braces(text: str) -> str:
    r"""`sqrt(…)` as `\sqrt{…}`; an unclosed one is kept."""
    while (root := _ROOT.search(text)) is not None:
        depth, end = 1, root.end()
        while end < len(text) and depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        if depth:
            return text
        text = f"{text[: root.start()]}\\sqrt{{{text[root.end() : end - 1]}}}{text[end:]}"
    return text
