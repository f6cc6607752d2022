"""Texts that are partly written by hand, and partly by `make generated`, between two marks."""

from __future__ import annotations


def between(text: str, begin: str, end: str, inside: str) -> str:
    """The text with `inside` as all the lines from below `begin` to `end`. Raises ValueError where a mark is missing."""
    at = text.find(begin)
    line_end = text.find("\n", at)
    until = text.find(end, line_end)
    if -1 in (at, line_end, until):
        raise ValueError(
            f"there is no place for what is generated: it needs the marks `{begin}` and, below it, `{end}`"
        )
    return f"{text[: line_end + 1]}{inside}{text[until:]}"
