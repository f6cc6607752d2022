"""Find the final answer in a completion or a reference solution."""

import re

from seele_trainer.verify.normalise import NUMBER

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(\{|\d)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
"""An opening or closing brace; escaped ones are skipped."""
_HASHES = re.compile(r"####[ \t]*([^\n]+)")
_HEADING = re.compile(
    r"(?:the )?(?:final )?(?:answer|solution|result)\s*:?|(?:step|part|case|method)\b.*|.*:", re.IGNORECASE
)
_PHRASE = re.compile(
    r"(?:\banswer(?:\s+(?:to|of|for)\s[^.\n]{1,80}?)?(?:\s+(?:is|are|equals|would be|will be|must be)\b"
    r"(?:\s+(?:therefore|thus|then|hence|simply|just|indeed|equal to))?\s*:?|\**\s*[:=])"
    r"|^#+\s*(?:the\s+)?(?:final\s+)?answer[ \t]*$"
    r"|\b(?:respuesta|réponse|antwort|risposta|resposta)"
    r"(?:\s+(?:es|est|ist|è|é|lautet)\b(?:\s+(?:donc|also|entonces|quindi|portanto))?\s*:?|\s*:)|\bответ\s*[:—-]"
    r"|(?:答案|答え|答)\s*(?:是|为|為|は|[:：])\s*[:：]?)\**\s*([^\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_ANSWER = re.compile(
    r"(?:\w+ )?(?:correct|right|wrong|incorrect|verified|clear|obvious|confirmed|as follows)\b", re.IGNORECASE
)
"""Said about an answer, as in `so the answer is correct`."""
_SENTENCE_END = re.compile(r"(?:\.|;|(?<!\\)!|\?)(?=\s|$)|\*\*|<|[。；！？]")
_REMARK = re.compile(
    r"(?<=[\d%$}])(?:\s+\((?=[a-z])[^()]*\)?|,?\s+(?:because|since|so|which|but|(?:and\s+)?not|rather|instead)\s.*)$",
    re.IGNORECASE | re.DOTALL,
)
"""What follows an answer in its sentence: `12 (not 13)`, `12, because …`."""
_NEXT_TURN = re.compile(
    r"^[ \t#*]*(?:user|human|question|problem|exercise|example|task|q|pregunta|frage|问题|题目|例)"
    r"[ \t]*\d*[ \t]*\**[:.：]|(?<=>)[ \t]*(?:user|human)[ \t]*:"
    r"|<\|(?:im_start|start_header_id|user)\b|\[INST\]|^#+[ \t]*(?:instruction|question|problem|input|user)\b",
    re.IGNORECASE | re.MULTILINE,
)
"""Where a base model that was not stopped continues with another question."""
MAX_TURNS = 8
"""Turns of a completion that are searched for the first marked answer."""
_END_OF_THOUGHT = re.compile(r"</(?:think|thinking|thought|reasoning|scratchpad)>")
_HTML = re.compile(r"</?(?:b|i|u|em|strong|p|span|div|code|mark|center|h\d)(?: [a-z]+=[^<>\n]{0,80})?>|<br ?/?>")
_TAG = re.compile(r"<(/?)(?:final_)?answer>", re.IGNORECASE)
_FINISHED = re.compile(r"[.!?。！？}\])*$][\"'”’*_)\s]*$")
_PROSE = re.compile(r"(?<![\\\w])[^\W\d_]{2,}(?!\w)")
_NUMBER_AND_WORDS = re.compile(rf"(\\?\$?[-+]?\\?\$?{NUMBER}%?)\s+[a-zA-Z][a-zA-Z\s,'-]*")
_LAST_NUMBER = re.compile(rf"(?<![\w.])-?{NUMBER}|{NUMBER}")


def final_turn(text: str) -> str:
    """The part of a completion that answers: what follows `</think>`, up to where the model continues with another question.

    Another question only ends the answer if a marked answer precedes it.
    """
    for number, turn in enumerate(_NEXT_TURN.finditer(text)):
        if number == MAX_TURNS:
            break
        if marked_answer(text[: turn.start()]) is not None:
            text = text[: turn.start()]
            break
    if "<" not in text:
        return text
    answer = _END_OF_THOUGHT.split(text)[-1]
    return _HTML.sub("", answer if answer.strip() else text)


def is_finished(text: str) -> bool:
    """Whether a text without a marked answer ends with a whole sentence, a formula or a line that is hardly more than a number.

    Otherwise the length limit cut it off, and its last number is an intermediate result.
    """
    *_, last_box = None, *_BOX.finditer(text)
    if last_box is not None and last_box.group(1) == "{" and not _is_closed(text, last_box.end()):
        return False
    last_line = text.rstrip().rpartition("\n")[2]
    return _FINISHED.search(last_line) is not None or len(_PROSE.findall(last_line)) <= 2


def _is_closed(text: str, start: int) -> bool:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0:
            return True
    return False


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
    found = [after for after in _HASHES.findall(text) if not _HEADING.fullmatch(after.strip("* \t\r"))]
    return _trimmed(found[-1]) if found else None


def _tagged(text: str) -> str | None:
    start, content = None, ""
    for tag in _TAG.finditer(text):
        if not tag.group(1):
            start = tag.end()
        elif start is not None:
            content = text[start : tag.start()]
    return _trimmed(content)


def _stated(text: str) -> str | None:
    found = [after for after in _PHRASE.findall(text) if not _NO_ANSWER.match(after)]
    if not found:
        return None
    again = _PHRASE.search(found[-1])
    if again and again.start() <= len("the final "):
        found.append(again.group(1))
    sentence = _SENTENCE_END.split(found[-1].removeprefix("**"), maxsplit=1)[0]
    return _trimmed(_REMARK.sub("", sentence))


def _trimmed(answer: str) -> str | None:
    """The answer without closing punctuation and without a unit in words after a number (`72 clips`)."""
    answer = answer.strip().rstrip(".,;").strip("*_`").strip()
    counted = _NUMBER_AND_WORDS.fullmatch(answer)
    return (counted.group(1) if counted else answer) or None
