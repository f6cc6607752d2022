"""How much of a reference solution may be shown as a hint without giving the final answer away.

A cut that is too early costs little: hints of this problem are shorter, and more is left for the model to do. A cut that
is too late breaks the method: the model copies the answer from the hint, rollouts succeed at every rate near 1, and the
controller mistakes the copying for ability. When in doubt, therefore, the rules below cut early.
"""

import math
import os
import re
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from multiprocessing import get_context, parent_process
from typing import TypeAlias

from seele_trainer.data.problem import Problem
from seele_trainer.verify.check import split_choice
from seele_trainer.verify.evaluate import is_same_value, value_at_a_point
from seele_trainer.verify.normalise import NUMBER, as_interval, normalised, number_value, right_hand_side, unwrapped
from seele_trainer.verify.process import available_cores
from seele_trainer.verify.units import split_unit
from seele_trainer.verify.words import fractions_in_words, numbers_in_words

FEW = 2000
"""Problems that are cut before new processes would have started."""
MAX_PROCESSES = 16
_PER_TASK = 16

Cuts: TypeAlias = Callable[[Sequence[Problem]], Iterable[int]]
"""Leading characters of each problem's solution that hints may show. Other processes find them before they are read."""
# Here and below: a look at the first character alone lets the search skip all others, which is most of the time it takes.
FINAL_ANSWER_MARK = re.compile(
    r"(?=[#\\<tofca])(?:####|\\boxed|\\fbox|\\framebox|<answer"
    r"|\b(?:the|our|final|correct)\s+(?:final\s+|correct\s+)?answers?\b|\banswers?\s*(?:is|are|=|:))",
    re.IGNORECASE,
)
"""Marks of a final answer in the solutions of common data sets."""

_RESULT_BEFORE = re.compile(
    r"(?:[=≈≡:→⇒<>≤≥]|\\(?:approx|simeq|sim|equiv|Rightarrow|rightarrow|to|implies|Longrightarrow|cong|geq?|leq?|ge|le|in)"
    r"|\\(?:boxed|fbox|framebox)"
    r"|\b(?:is|are|was|were|be|equals?|equal\s+to|gives?|gets?|got|yields?|makes?|becomes?|leaves?|total\s+of)"
    r"|\b(?:option|choice)|\b(?:only|exactly|about|approximately|just)|[是为有]|剩下|还剩|等于|一共|共)"
    r"(?:\s|[&({\[|+−-]|\\?\$|\\[(\[!,;: ]|\\left[({\[|.]?|\\(?:text|mathrm|mathbf|textbf)\{)*$",
    re.IGNORECASE,
)
_OPERAND_BEFORE = re.compile(r"(?:[-+−*/×·^_÷(,]|\\(?:cdot|times|div|pm))\s*\\?\$?\s*$")
_EQUALS_AFTER = re.compile(r"\s*\\?[%$]?\s*&?\s*(?:=|≈|\\approx)")
_DANGLING = re.compile(
    r"(?:\\?\$|\\[(\[]|[({\[&=≈<]|\\(?:approx|simeq|left|text\{|mathbf\{|mathrm\{|textbf\{)"
    r"|[ \t]|(?<![\w)}\]])[-−]|<<[^<>\n]*)+$"
)
_NUMBER = re.compile(rf"(?=[\d.])(?<!\d){NUMBER}")
_GROUPED_NUMBER = re.compile(r"(?=\d)(?<!\d)\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)")
"""A number with spaces between its thousands, such as `12 000`. It may be two numbers: `12 200-page books`."""
_SCALE = re.compile(r"(?=[dhtm])(?:dozen|hundred|thousand|million)", re.IGNORECASE)
"""A part of each English number from 100 on."""
_SCALED = re.compile(
    r"(?<![\d.])(\d+(?:\.\d+)?)\s*(?:(?:\\times|\\cdot|×|\*|x)\s*10\s*(?:\^|\*\*)\s*\{?(-?\d{1,3})\}?|[eE]([+-]?\d{1,3})\b"
    r"|(?:\\text\s*\{\s*)?(thousand|million|billion)\b)"
)
_SCALES = {"thousand": 3, "million": 6, "billion": 9}
_ROOT_IN_WORDS = re.compile(r"square root of\s+\$?(\d+)")
_FRACTION = re.compile(
    r"\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))|(?<![\d.])(\d+)\s*(?:/|:|\bto\b)\s*(\d+)(?![\d.]*\d)"
)
_INEQUALITY = re.compile(
    r"(?<![\w\\])(?:[-\d.]+\s*(?:[<>≤≥]=?|\\[lg]eq?)\s*)?[a-zA-Z]\s*(?:[<>≤≥]=?|\\[lg]eq?)\s*[-\w\\/{}]+(?:\.\d+)?"
    r"|-?\d[\d./]*\s*(?:[<>≤≥]=?|\\[lg]eq?)\s*[a-zA-Z](?![a-zA-Z]|\s*[<>≤≥=\\])|\|[a-zA-Z]\|\s*(?:[<>≤≥]=?|\\[lg]eq?)\s*[\w./]*\w"
)
_INTERVAL = re.compile(r"[(\[][^()\[\]\n]{1,60},[^()\[\]\n]{1,60}[)\]]")
_VECTOR = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)
_IGNORED = re.compile(
    r"\\(?:left|right)(?![a-zA-Z])\.?|\\[!,;:> ]|[\s{}$~*&]"
    r"|\\(?:displaystyle|quad|qquad|cdot|text|mbox|hbox|mathrm|mathbf|textbf|operatorname)(?![a-zA-Z])"
)
_SMALL_FRACTION = re.compile(r"\\([dt])frac")
_STEP_LABEL = re.compile(r"^[ \t]*(?:\*\*|#+ )?(step\s+)?(\d{1,3})\s*(?:\*\*)?[.:)]", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(r"[.!?]\s+(?=\S)")
_DECIMALS = re.compile(r"(?<![\d.])\d{1,15}\.(\d{3,30})(?!\d)")
_COMMAND = re.compile(r"\\[a-zA-Z]+")
_LETTER = re.compile(r"[a-zA-Z]")
_COMMA = re.compile(r",(?![^({\[]*[)}\]])")
_NO_NUMBERS = re.compile(r"\b(?:none|nothing)\b", re.IGNORECASE)

_PIECE = re.compile(r"[^=<>\n$,;:?!≈。，]+")
_WORDS = re.compile(
    r"(?<![\\a-zA-Z])(?!(?:sqrt|pi|and(?=\s+\d+\s*/))\b)[a-zA-Z]{2,}(?![a-zA-Z])|[^\x00-\x7f√∛½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞π²³×⋅·÷−]|\\text\b"
)
_UNIT = re.compile(r"\s[a-zA-Z]$")

Span = tuple[int, int]


def revealable_characters(question: str, solution: str, answer: str) -> int:
    """How many leading characters of `solution` a hint may show without ever containing the final answer.

    The cut is at the first of
    - a mark that announces the final answer (`FINAL_ANSWER_MARK`);
    - if the question does not contain the answer: its first separate occurrence (numbers between digit boundaries, with
      or without thousands separators, `.0`, `$`, `%` or sign, and in words; other answers regardless of white space
      and braces, in formulas of the same value (verify.evaluate), and as an inequality for an interval);
    - if the question contains it: its first occurrence as a result (after `=` or "is", or before `=`), or any
      occurrence in the last step.
    An answer of several parts is revealed by its last part. If none of these is found, the last step is cut off. The
    numbers of numbered steps do not count. White space, `=` and opening delimiters before the cut are removed as well.
    """
    mark = FINAL_ANSWER_MARK.search(solution)
    cut = mark.start() if mark else len(solution)
    found = first_revealing(question, solution[:cut], answer)
    if found is not None:
        cut = found
    elif mark is None:
        # The answer has an unknown spelling, most likely at the end.
        cut = _last_step(solution)
    return _without_dangling(solution, cut)


def first_revealing(question: str, text: str, answer: str) -> int | None:
    """Offset at which `text` begins to reveal `answer` to a reader of `question`; None if it never does."""
    letter, value = split_choice(unwrapped(answer))
    if letter and value:
        found = [first_revealing(question, text, part) for part in (f"({letter})", value)]
        return min((first for first in found if first is not None), default=None)
    whole = _first_of_one(question, text, answer)
    parts = _parts(answer)
    if len(parts) < 2:
        return whole
    firsts = [_first_of_one(question, text, part) for part in parts]
    if any(first is None for first in firsts):
        return whole
    last = max(first for first in firsts if first is not None)
    return last if whole is None else min(whole, last)


def _first_of_one(question: str, text: str, answer: str) -> int | None:
    in_question = any(True for _ in occurrences(question, answer))
    last_step = _last_step(text)
    for start, end in occurrences(text, answer):
        if not in_question or start >= last_step or in_result_position(text, start, end):
            return start
    return None


def occurrences(text: str, answer: str) -> Iterator[Span]:
    """Spans of separate occurrences of `answer` in `text`, in any of its usual spellings, in ascending order."""
    core = right_hand_side(unwrapped(answer))
    value = number_value(core)
    if value is None and "10^" in core and (amount_at := value_at_a_point(core)) is not None:
        value = Decimal(repr(float(amount_at)))
    if value is not None:
        spans = set(_spans_of_value(text, abs(value)))
        if "%" in answer:
            spans |= set(_spans_of_value(text, abs(value) / 100))
        if value != value.to_integral_value():
            spans |= set(_formulas_of_value(text, core))
        yield from sorted(spans)
        return
    spans = set(_spans_of_text(text, core)) | set(_formulas_of_value(text, core)) | set(_spans_of_interval(text, core))
    # A number with its unit: the number alone already gives the answer away.
    measured, _ = split_unit(core)
    amount = number_value(measured) if measured != core else _fraction_value(core)
    spans |= set(_spans_of_decimals(text, core))
    if amount is not None:
        spans |= set(_spans_of_value(text, abs(amount)))
    yield from sorted(spans)


def _formulas_of_value(text: str, answer: str) -> Iterator[Span]:
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
            values = [value_at_a_point(read) for read in {part, _UNIT.sub("", part)}]
            if any(value is not None and is_same_value(value, wanted) for value in values):
                begin = text.index(part, start)
                yield begin, begin + len(part)
            start = piece.start() + word.end() if word else end


def _spans_of_interval(text: str, answer: str) -> Iterator[Span]:
    """Inequalities in `text` with the same solutions as `answer`, an inequality or an interval."""
    wanted = normalised(as_interval(answer))
    if wanted[:1] not in ("(", "["):
        return
    for pattern in (_INEQUALITY, _INTERVAL):
        for match in pattern.finditer(text):
            if normalised(as_interval(match.group().strip(" $."))) == wanted:
                yield match.span()


def in_result_position(text: str, start: int, end: int) -> bool:
    """Whether [start, end) of `text` reads as a result: after `=` or "is", or alone before `=`."""
    before = text[max(0, start - 80) : start]
    if _RESULT_BEFORE.search(before):
        return True
    return _EQUALS_AFTER.match(text, end) is not None and not _OPERAND_BEFORE.search(before)


def _spans_of_value(text: str, value: Decimal) -> Iterator[Span]:
    """Numbers of this size in `text`. The sign is ignored: `-5` gives 5 away almost as much as 5 does."""
    labels = _step_labels(text)
    for match in chain(_NUMBER.finditer(text), _GROUPED_NUMBER.finditer(text)):
        if match.start() in labels:
            continue
        number = _value_of(match.group())
        if number is not None and (
            number == value or (number == 100 * value and text[match.end() :].lstrip(" \\").startswith("%"))
        ):
            yield match.span()
    if value == value.to_integral_value():
        # Most answers from 100 on can be nowhere in words, and searching for all numbers in words takes longer.
        if value < 100 or not text.isascii() or _SCALE.search(text):
            yield from ((start, end) for start, end, spelled in numbers_in_words(text) if spelled == value)
        if value == 0:
            yield from (match.span() for match in _NO_NUMBERS.finditer(text))
        if value >= 1000:
            yield from _spans_of_scaled(text, value)
        return
    for start, end, share in fractions_in_words(text):
        if Decimal(share.numerator) / Decimal(share.denominator) == value:
            yield start, end
    for match in _FRACTION.finditer(text):
        # Fractions are not compared with whole answers: `48/2` is the question, not yet its answer.
        if _ratio(match) == value:
            yield match.span()


@lru_cache(maxsize=8192)
def _value_of(number: str) -> Decimal | None:
    return number_value(re.sub(r"\s", "", number))


def _spans_of_scaled(text: str, value: Decimal) -> Iterator[Span]:
    """`3 \\times 10^{4}`, `3e4` and `30 thousand` for 30000."""
    for match in _SCALED.finditer(text):
        exponent = match.group(2) or match.group(3) or _SCALES[match.group(4)]
        if Decimal(match.group(1)).scaleb(int(exponent)) == value:
            yield match.span()


def _spans_of_decimals(text: str, answer: str) -> Iterator[Span]:
    """Decimals in `text` that are the value of `answer` rounded or cut off after three digits or more, and roots in words."""
    wanted = None if "." in answer or _LETTER.search(_COMMAND.sub("", answer)) else value_at_a_point(answer)
    if wanted is None:
        return
    for match in _DECIMALS.finditer(text):
        if abs(float(match.group()) - abs(float(wanted))) <= float(f"1e-{len(match.group(1))}"):
            yield match.span()
    for match in _ROOT_IN_WORDS.finditer(text):
        if is_same_value(math.sqrt(int(match.group(1))), float(wanted)):
            yield match.span()


def _fraction_value(text: str) -> Decimal | None:
    match = _FRACTION.fullmatch(text.strip().removeprefix("-").strip())
    return _ratio(match) if match else None


def _ratio(match: re.Match[str]) -> Decimal | None:
    numerator, denominator = (int(group) for group in match.groups() if group is not None)
    return Decimal(numerator) / Decimal(denominator) if denominator else None


def _spans_of_text(text: str, answer: str) -> Iterator[Span]:
    """Verbatim occurrences of `answer` in `text`, apart from white space, braces and sizes of brackets."""
    wanted, _ = _squeezed(answer)
    if not wanted:
        return
    squeezed, offsets = _squeezed(text)
    if wanted.isalpha() and len(wanted) > 1:
        wanted, squeezed = wanted.lower(), squeezed.lower()
    position = squeezed.find(wanted)
    while position >= 0:
        start, end = offsets[position], offsets[position + len(wanted) - 1] + 1
        if not _continues(text[start - 1 : start], wanted[0]) and not _continues(text[end : end + 1], wanted[-1]):
            yield start, end
        position = squeezed.find(wanted, position + 1)


def _continues(neighbour: str, edge: str) -> bool:
    """Whether `neighbour` is part of the same word or number as `edge`."""
    return bool(neighbour) and ((neighbour.isalpha() and edge.isalpha()) or (neighbour.isdigit() and edge.isdigit()))


def _squeezed(text: str) -> tuple[str, list[int]]:
    """The text without matches of `_IGNORED`, and the offset in `text` of each remaining character."""
    hidden = {match.start(1) for match in _SMALL_FRACTION.finditer(text)}
    for match in _IGNORED.finditer(text):
        hidden.update(range(*match.span()))
    offsets = [offset for offset in range(len(text)) if offset not in hidden]
    return "".join(text[offset] for offset in offsets), offsets


def _parts(answer: str) -> list[str]:
    """The members of an answer that is a list, tuple, interval or set; otherwise the answer alone."""
    core = re.sub(r"\\(?:left|right)(?![a-zA-Z])", "", right_hand_side(unwrapped(answer))).strip()
    if number_value(core) is not None:
        return [core]
    if matrix := _VECTOR.fullmatch(core):
        return [part.strip() for part in re.split(r"\\\\|&", matrix.group(1)) if part.strip()]
    if "\\cup" in core:
        return [part.strip() for part in core.split("\\cup")]
    core = core.removeprefix("\\{").removesuffix("\\}").strip()
    if len(core) > 1 and core[0] in "([{" and core[-1] in ")]}" and _COMMA.search(core[1:-1]):
        core = core[1:-1]
    parts = re.split(r"\\text\{\s*(?:and|or)\s*\}|\band\b|\bor\b", ",".join(_COMMA.split(core)))
    parts = [part for piece in parts for part in (p.strip(" $") for p in _COMMA.split(piece)) if part]
    signs = {part: "+-" if "\\pm" in part else "+" for part in parts}
    return [part.replace("\\pm", sign).strip().removeprefix("+").strip() for part in parts for sign in signs[part]]


def _last_step(text: str) -> int:
    """Offset of the last line that is not blank; with one line, of the last sentence; with one sentence, 0."""
    last_line = text.rstrip().rfind("\n") + 1
    if text[:last_line].strip():
        return last_line
    ends = [match.end() for match in _SENTENCE_END.finditer(text.rstrip())]
    return ends[-1] if ends else 0


def _step_labels(text: str) -> set[int]:
    """Offsets of the numbers of steps: `Step 3:`, or `3.` at the start of a line if 1 and 2 preceded it."""
    labels: set[int] = set()
    expected = 1
    for match in _STEP_LABEL.finditer(text):
        number = int(match.group(2))
        if number == expected and (match.group(1) or number > 1 or not text[: match.start()].strip()):
            labels.add(match.start(2))
            expected += 1
    return labels


def _without_dangling(solution: str, cut: int) -> int:
    """Move `cut` back over an unfinished `= $` and white space; a complete line keeps its line break."""
    shown = solution[:cut]
    if cut < len(solution):
        # No match spans lines, so none begins before the last one.
        while match := _DANGLING.search(shown, shown.rfind("\n", 0, -1) + 1):
            shown = shown[: match.start()]
    stripped = shown.rstrip()
    breaks = shown[len(stripped) :].rfind("\n")
    return len(stripped) + breaks + 1


def cut_here(problems: Sequence[Problem]) -> list[int]:
    """The cuts, found by this process."""
    return [_cut(problem) for problem in problems]


@contextmanager
def cuts_for(count: int) -> Iterator[Cuts]:
    """What finds the cuts of so many problems: this process for a few, and otherwise one process for each core."""
    processes = min(available_cores(), MAX_PROCESSES)
    if count < FEW or processes == 1:
        yield cut_here
        return
    # Not forked: this process has threads, whose locks would stay locked in a copy.
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=_end_with_parent) as pool:
        yield lambda problems: pool.map(_cut, problems, chunksize=_PER_TASK)


def _cut(problem: Problem) -> int:
    return revealable_characters(problem.question, problem.solution, problem.answer)


def _end_with_parent() -> None:
    """Leave signals from the terminal to the parent, and outlive it no longer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
