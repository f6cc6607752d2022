"""Answers other than a single formula: times of day, numbers in a base, percentages, lists, tuples and intervals."""

import re
from collections.abc import Callable

from seele_trainer.verify.normalise import (
    as_interval,
    is_inequality,
    number_value,
    right_hand_side,
    unwrapped,
)
from seele_trainer.verify.spelling import as_latex, without_unicode
from seele_trainer.verify.words import value_of_words

MAX_MEMBERS = 30
"""Members of the longest list whose members are compared with each other."""

_TIME = re.compile(r"(\d{1,2}):(\d\d)\s*(?:([ap])\.?\s*m\.?|noon|o'clock)?", re.IGNORECASE)
_BASE = re.compile(r"\(?([0-9A-Fa-f]+)\)?_\{?(\d+|[a-z]+)\}?")
_SCALE = re.compile(r"([^a-zA-Z]*\d)\s*(?:\\text\s*\{\s*)?(thousand|million|billion|trillion)\b(.*)", re.DOTALL)
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PERCENT = re.compile(r"\s*\\?%\s*\}?$")
_SIZES = re.compile(r"\\(?:left|right|big|Big|bigl|bigr)(?![a-zA-Z])|\\[!,;:> ]")
_RELATION = re.compile(r"[=<>|:]|\\(?:leq?|geq?|ne|mid|setminus|cap|times|begin)(?![a-zA-Z])")
_BRACKETS = {"(": ")]", "[": ")]", "{": "}"}
_SEPARATOR = re.compile(r"\\text\s*\{\s*,?\s*(?:and|or)\s*\}|,?\s*\b(?:and|or)\b|\\cup(?![a-z])|[,;]")
_COLUMN = re.compile(r"\\begin\{[pb]matrix\}([^&]*)\\end\{[pb]matrix\}")
_ASSIGNED = re.compile(r"\s*([a-zA-Z]\w*)\s*=\s*([^=]*[^=\s])\s*")
_THOUSANDS = re.compile(r"\s*\d{3}(?!\d)")


def same_word(answer: str, expected: str) -> bool | None:
    """Whether two words are equal in any case; None if one of them is not a word, but may be a product or a number."""
    word, expected_word = unwrapped(answer), unwrapped(expected)
    if not (word.replace(" ", "").isalpha() and expected_word.replace(" ", "").isalpha()):
        return None
    if word.lower() == expected_word.lower():
        return True if len(word) > 2 or (word[1:].islower() and expected_word[1:].islower()) else None
    are_words = min(len(word), len(expected_word)) > 2 and max(len(word), len(expected_word)) > 3
    is_rewritten = any(as_latex(text) != text for text in (word, expected_word))
    return False if are_words and not is_rewritten and sorted(word) != sorted(expected_word) else None


def same_time(answer: str, expected: str) -> bool | None:
    """Whether two times of day are equal, one of which may lack a.m. or p.m.; None without a.m. or p.m."""
    times = [_TIME.fullmatch(re.sub(r"\\[ ,;!]", "", unwrapped(text)).strip()) for text in (answer, expected)]
    if not (times[0] and times[1]):
        return None
    (hour, minute, half), (other_hour, other_minute, other_half) = (
        (int(time[1]), time[2], (time[3] or "").lower()) for time in times if time
    )
    if minute != other_minute or not (half or other_half):
        return None
    if half and other_half:
        return (hour, half) == (other_hour, other_half)
    return hour == other_hour or other_hour - hour == (12 if half == "p" else -12 if other_half == "p" else 0)


def same_base(answer: str, expected: str) -> bool | None:
    """Whether two numbers with their bases are equal; None if one of them has none."""
    numbers = [_BASE.fullmatch(re.sub(r"\s", "", unwrapped(text))) for text in (answer, expected)]
    if not (numbers[0] and numbers[1]):
        return None
    digits = [(number[1].upper(), str(value_of_words(number[2]) or number[2])) for number in numbers if number]
    return digits[0] == digits[1]


def in_figures(answer: str) -> str:
    """`2.5 million` as 2500000, with what follows it; any other text as it is."""
    scale = _SCALE.fullmatch(answer)
    value = number_value(scale[1]) if scale else None
    if scale is None or value is None:
        return answer
    return f"{value * 10 ** _SCALES[scale[2]]:f} {scale[3].strip(' }')}".strip()


def split_percent(answer: str) -> tuple[str, bool]:
    """The number without its percent sign, and whether it had one."""
    number, count = _PERCENT.subn("", answer.strip())
    return number, bool(count)


def without_inequalities(answer: str, expected: str) -> tuple[str, str]:
    """Both with intervals for inequalities, unless one of them cannot be written so; `\\pm` in one of them as two values."""
    intervals = as_interval(answer), as_interval(expected)
    if not any(map(is_inequality, intervals)):
        answer, expected = intervals
    if ("\\pm" in answer) != ("\\pm" in expected) and "," not in (answer if "\\pm" in answer else expected):
        answer, expected = (_two(text) if "\\pm" in text else text for text in (answer, expected))
    return answer, expected


def _two(text: str) -> str:
    text = right_hand_side(text)
    return ", ".join(text.replace("\\pm", sign).replace("\\mp", other) for sign, other in ("+-", "-+"))


def _vector(column: re.Match[str]) -> str:
    return f"({','.join(column[1].split(chr(92) * 2))})"


def same_members(answer: str, expected: str, same: Callable[[str, str], bool]) -> bool | None:
    """Whether two lists, sets, tuples, intervals or unions have the same members; None if that is not enough to tell."""
    if ("\\begin" in answer) != ("\\begin" in expected):
        answer, expected = _COLUMN.sub(_vector, answer), _COLUMN.sub(_vector, expected)
    found, wanted = _members(answer), _members(expected)
    if found is None or wanted is None:
        # Several members are not one number.
        alone = expected if found else answer
        return False if (found or wanted) and number_value(alone) is not None else None
    if len(found[1]) != len(wanted[1]):
        values = [[number_value(member) for member in members] for _, members in (found, wanted)]
        return set(values[0]) == set(values[1]) if None not in values[0] + values[1] else None
    brackets, members = found
    expected_brackets, expected_members = wanted
    if brackets != expected_brackets and brackets and expected_brackets:
        return False if len(members) == 2 and "{" not in brackets + expected_brackets else None
    if "(" in brackets + expected_brackets or "[" in brackets + expected_brackets:
        return all(map(same, members, expected_members))
    left = list(expected_members)
    for member in members:
        equal = next((other for other in left if same(member, other)), None)
        if equal is None:
            return None if "cup" in answer + expected else False
        left.remove(equal)
    return True


def _members(answer: str) -> tuple[str, list[str]] | None:
    """Brackets ("" for none) and members of a list; None for anything else, and where a comma may separate thousands."""
    text = (
        _SIZES.sub("", right_hand_side(without_unicode(unwrapped(answer))))
        .replace("\\langle", "(")
        .replace("\\rangle", ")")
    )
    text = re.sub(r"\\([{}])", r"\1", re.sub(r"^[A-Z]\s*(?=\()", "", text.strip()))
    assigned = [_ASSIGNED.fullmatch(part) for part in _SEPARATOR.split(text)]
    if len(assigned) > 1 and all(assigned):
        values = sorted((part[1], part[2]) for part in assigned if part)
        # `x = 1, x = 2` and `x_1 = 1, x_2 = 2` are two solutions, `x = 1, y = 2` is one.
        is_one = len({name[0] for name, _ in values}) == len(values)
        return ("()" if is_one else "", [value for _, value in values])
    if _RELATION.search(text) or number_value(text) is not None:
        return None
    brackets = ""
    if text[:1] in _BRACKETS and text[-1] in _BRACKETS[text[0]] and _closing(text) == len(text) - 1:
        brackets, text = text[0] + text[-1], text[1:-1]
    members, start, depth = [], 0, 0
    for match in re.finditer(rf"[(\[{{]|[)\]}}]|{_SEPARATOR.pattern}", text):
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(match.group(), 0)
        if depth == 0 and match.group() not in (")", "]", "}"):
            if match.group() == "," and not brackets and _THOUSANDS.match(text, match.end()):
                return None
            members.append(text[start : match.start()].strip())
            start = match.end()
    members = [member for member in (*members, text[start:].strip()) if member]
    return (brackets, members) if 2 <= len(members) <= MAX_MEMBERS and depth == 0 else None


def _closing(text: str) -> int:
    depth = 0
    for match in re.finditer(r"[(\[{]|[)\]}]", text):
        depth += 1 if match.group() in "([{" else -1
        if depth == 0:
            return match.start()
    return -1
