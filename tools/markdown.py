"""Parts of Markdown pages that are generated."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, ending with a line break."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def between(text: str, begin: str, end: str, inside: str) -> str:
    """The text with `inside` in place of the lines between the marks. Raises ValueError if a mark is missing."""
    at = text.find(begin)
    line_end = text.find("\n", at)
    until = text.find(end, line_end)
    if -1 in (at, line_end, until):
        raise ValueError(f"the generated text has no place: add the lines `{begin}` and, below it, `{end}`")
    return f"{text[: line_end + 1]}{inside}{text[until:]}"
