"""Find the final answer in a completion or a reference solution."""

from __future__ import annotations

import re

from seele_trainer.verify.normalise import NUMBER

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(\{|\d)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""An opening or closing brace; escaped ones are skipped."""
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_PHRASE = re.compile(
    r"\banswer(?:\s+(?:is|are|equals|would be|will be|must be)\b\s*:?|\s*[:=])\**\s*([^\n]+)",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?:\.|;|(?<!\\)!|\?)(?=\s|$)|\*\*|<")
_NUMBER_AND_WORDS = re.compile(rf"(\\?\$?[-+]?\\?\$?{NUMBER}%?)\s+[a-zA-Z][a-zA-Z\s,'-]*")
_LAST_NUMBER = re.compile(rf"(?<![\w.])-?{NUMBER}|{NUMBER}")


def extract_answer(text: str) -> str | None:
    """The final answer of a text, or None.

    Tried in this order: the last complete `\\boxed{…}` (or `\\fbox`, `\\framebox`), the last `#### x`, the last
    `<answer>…</answer>`, the last "answer is x" or "answer: x", and finally the last number.
    """
    marked = marked_answer(text)
    if marked is not None:
        return marked
    numbers = _LAST_NUMBER.findall(text)
    return numbers[-1] if numbers else None


def marked_answer(text: str) -> str | None:
    """The answer that a text marks as final, in the order of `extract_answer`; None without a mark."""
    for find in (_boxed, _after_hashes, _tagged, _stated):
        answer = find(text)
        if answer:
            return answer
    return None


def _boxed(text: str) -> str | None:
    """The content of the last complete box that is not empty; a box cut off by the length limit does not count."""
    boxes = {match.end(): match for match in _BOX.finditer(text)}
    last_start, last = -1, None
    opened: list[int] = []
    for brace in _BRACE.finditer(text, min(boxes, default=len(text)) - 1) if boxes else ():
        if brace.group() == "{":
            opened.append(brace.end())
        elif brace.group() == "}" and opened:
            start = opened.pop()
            content = text[start : brace.start()].strip()
            if start in boxes and start > last_start and content:
                last_start, last = start, content
    for start, box in boxes.items():
        if box.group(1) != "{" and start > last_start:
            last_start, last = start, box.group(1)
    return last


def _after_hashes(text: str) -> str | None:
    found = _HASHES.findall(text)
    return _trimmed(found[-1]) if found else None


def _tagged(text: str) -> str | None:
    lowered = text.lower()
    end = lowered.rfind("</answer>")
    start = lowered.rfind("<answer>", 0, max(end, 0))
    return _trimmed(text[start + len("<answer>") : end]) if start >= 0 else None


def _stated(text: str) -> str | None:
    found = _PHRASE.findall(text)
    if not found:
        return None
    sentence = _SENTENCE_END.split(found[-1].removeprefix("**"), maxsplit=1)[0]
    return _trimmed(sentence)


def _trimmed(answer: str) -> str | None:
    """The answer without closing punctuation and without a unit in words after a number (`72 clips`)."""
    answer = answer.strip().rstrip(".,;").strip("*").strip()
    counted = _NUMBER_AND_WORDS.fullmatch(answer)
    return (counted.group(1) if counted else answer) or None
