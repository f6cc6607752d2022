"""Numbers written as words, in English and Chinese, and simple fractions in English."""

import re
from collections.abc import Iterator
from fractions import Fraction

_ONES = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SMALL = {word: value for value, word in enumerate(_ONES.split())} | {
    word: 10 * tens for tens, word in enumerate(_TENS.split(), start=2)
}
# Of other languages only words that are not English words of another meaning.
_SMALL |= {
    word: value
    for language in (
        "zwei drei vier fünf sechs sieben acht neun zehn elf zwölf",
        "deux trois quatre cinq six sept huit neuf dix onze douze",
        "dos tres cuatro cinco seis siete ocho nueve diez once doce",
    )
    for value, word in enumerate(language.split(), start=2)
    if word not in ("six", "once")
}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000, "million": 10**6}
_WORD = "|".join(sorted((*_SMALL, *_SCALES), key=len, reverse=True))
_ENGLISH = re.compile(
    rf"\b(?=[adefhmnostz])(?:an?\s+(?={'|'.join(_SCALES)}))?(?:{_WORD})(?:(?:\s*-\s*|\s+and\s+|\s+)(?:{_WORD}))*\b",
    re.IGNORECASE,
)
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_CHINESE_SCALES = {"十": 10, "百": 100, "千": 1000}
_CHINESE = re.compile("[零〇一二两三四五六七八九十百千万]+")


_PARTS = {"hal(?:f|ves)": 2, "quarters?": 4} | {
    f"{word}s?": parts
    for parts, word in enumerate(["third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"], start=3)
}
_SHARE = re.compile(rf"\b(an?|{'|'.join(_SMALL)})[\s-]+(?:{'|'.join(f'({part})' for part in _PARTS)})\b", re.IGNORECASE)


def fractions_in_words(text: str) -> Iterator[tuple[int, int, Fraction]]:
    """Start, end and value of each fraction in words, such as `two thirds` and `a quarter`, but not of `half` alone."""
    parts = list(_PARTS.values())
    for match in _SHARE.finditer(text):
        count = _SMALL.get(match.group(1).lower(), 1)
        yield match.start(), match.end(), Fraction(count, parts[(match.lastindex or 2) - 2])


def value_of_words(text: str) -> int | None:
    """The number that a text of words alone is (`twenty-one`, `a dozen`, `十二`); otherwise None."""
    found = next(iter(numbers_in_words(text)), None) if len(text) < 80 else None
    return found[2] if found is not None and text[found[0] : found[1]] == text.strip() else None


def numbers_in_words(text: str) -> Iterator[tuple[int, int, int]]:
    """Start, end and value of each number in words. `five and six` are two numbers, `one hundred and six` is one."""
    for match in _ENGLISH.finditer(text):
        yield from _english(match)
    if not text.isascii():
        for match in _CHINESE.finditer(text):
            yield match.start(), match.end(), _chinese(match.group())


def _english(match: re.Match[str]) -> Iterator[tuple[int, int, int]]:
    start, total, group, previous, end = match.start(), 0, 0, None, match.start()
    for word in re.finditer(_WORD, match.group(), re.IGNORECASE):
        value = (_SMALL | _SCALES)[word.group().lower()]
        is_scale = word.group().lower() in _SCALES
        if previous is not None and not is_scale and not _continues(previous, value, group):
            yield start, end, total + group
            start, total, group = match.start() + word.start(), 0, 0
        if value >= 1000:
            total, group = total + (group or 1) * value, 0
        elif is_scale:
            group = (group or 1) * value
        else:
            group += value
        previous, end = value, match.start() + word.end()
    yield start, end, total + group


def _continues(previous: int, value: int, group: int) -> bool:
    """Whether a number below 100 continues with the number before it, as in `twenty one` and `two hundred twelve`."""
    if previous >= 100:
        return group % 100 == 0
    return previous in range(20, 100, 10) and 0 < value < 10


def _chinese(numeral: str) -> int:
    total = group = digit = 0
    for character in numeral:
        if character in _DIGITS:
            digit = _DIGITS[character] if digit == 0 else digit * 10 + _DIGITS[character]
        elif character == "万":
            total, group, digit = (total + group + digit) * 10_000, 0, 0
        else:
            group += (digit or 1) * _CHINESE_SCALES[character]
            digit = 0
    return total + group + digit
