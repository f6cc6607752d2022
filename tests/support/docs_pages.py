"""Parses the Markdown pages: their blocks of code, and the comments that say how each is tested.

A block of commands is fenced as `console`, after a comment on the line before the fence:

    <!-- run here -->                           tests/integration/test_docs_commands.py executes it in a copy of the checkout
    <!-- run on a cluster -->                   the same, with a control plane as the README's commands leave it
    <!-- run by tests/x.py::test_y, .ci/run --> these do what the block says
    <!-- not run: needs GPUs -->                nothing executes it, for this reason
    <!-- file: problems.jsonl -->               the block is the content of this file, which later commands read

The first two accept `, exit code N` if the last command ends with a code other than 0. If commands begin with `$ `, the lines
below each are its output, where `…` matches anything, and a line of `…` any number of lines; a line that begins with `> `
continues the command. If no command begins with `$ `, every line is a command.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.support import REPOSITORY

_FENCE = re.compile(r"^( *)```(\S*)\s*$")
_COMMENT = re.compile(r"^\s*<!-- (.*) -->\s*$")
_RUN = re.compile(r"run (here|on a cluster)(?:, exit code (\d+))?")


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    page: str
    """Path in the repository."""
    line: int
    """Line of the fence, from 1."""
    language: str
    text: str
    comment: str
    """The comment before the fence, if any."""

    @property
    def place(self) -> str:
        """Page and line, as compilers write them."""
        return f"{self.page}:{self.line}"

    @property
    def where(self) -> str:
        """`here` or `on a cluster` for a block that is executed, empty for others."""
        found = _RUN.fullmatch(self.comment)
        return found[1] if found else ""

    @property
    def exit_code(self) -> int:
        """Exit code of its last command."""
        found = _RUN.fullmatch(self.comment)
        return int(found[2] or 0) if found else 0

    @property
    def run_by(self) -> list[str]:
        """Tests and scripts that run the block's commands."""
        return self.comment.removeprefix("run by ").split(", ") if self.comment.startswith("run by ") else []

    @property
    def not_run(self) -> str:
        """Why nothing executes it, if nothing does."""
        return self.comment.removeprefix("not run:").strip() if self.comment.startswith("not run:") else ""

    @property
    def file(self) -> str:
        """Name of the file whose content the block is; empty for most."""
        return self.comment.removeprefix("file:").strip() if self.comment.startswith("file:") else ""


@dataclass(frozen=True)
class Command:
    """A command of a block, and its output if the block shows it."""

    text: str
    output: str | None


def pages() -> list[str]:
    """Paths of all pages for users and contributors, the README first."""
    found = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("charts/*/*.md")]
    found += [*REPOSITORY.glob("benchmarks/*.md"), *REPOSITORY.glob("manifests/**/*.md")]
    return sorted((str(path.relative_to(REPOSITORY)) for path in found), key=lambda page: (page != "README.md", page))


def text_of(page: str) -> str:
    """The text of a page."""
    return (REPOSITORY / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found, comment, fence = [], "", None
    inside: list[str] = []
    for number, line in enumerate(text_of(page).splitlines(), start=1):
        edge = _FENCE.match(line)
        if fence is not None:
            indent, language, start = fence
            if edge and not edge[2]:
                found.append(Block(page, start, language, "".join(f"{one}\n" for one in inside), comment))
                comment, fence, inside = "", None, []
            else:
                inside.append(line.removeprefix(indent))
        elif edge:
            fence = (edge[1], edge[2], number)
        elif match := _COMMENT.match(line):
            comment = match[1]
        elif line.strip():
            comment = ""
    assert fence is None, f"{page}: a fence has no end"
    return found


def prose(page: str) -> str:
    """The text of a page without fenced blocks and comments."""
    kept, fenced = [], False
    for line in text_of(page).splitlines():
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            kept.append(line)
    return re.sub(r"<!--.*?-->", "", "\n".join(kept), flags=re.DOTALL)


def commands(block: Block) -> list[Command]:
    """The commands of a block, with their output if it is shown."""
    lines = block.text.splitlines()
    if not any(line.startswith("$ ") for line in lines):
        return [Command(text, None) for text in _scripts(lines)]
    assert lines[0].startswith("$ "), f"{block.place}: output before the first command"
    found: list[Command] = []
    text, output = "", []
    for line in lines:
        if line.startswith("$ "):
            if text:
                found.append(Command(text, "\n".join(output)))
            text, output = line[2:], []
        elif line.startswith("> ") and not output:
            text += f"\n{line[2:]}"
        else:
            output.append(line)
    return [*found, Command(text, "\n".join(output))]


def _scripts(lines: list[str]) -> Iterator[str]:
    """Each command with its continuation lines."""
    text = ""
    for line in lines:
        text += f"{line}\n"
        if not line.endswith("\\"):
            if text.strip():
                yield text.rstrip("\n")
            text = ""


def shows(shown: str, output: str) -> bool:
    """Whether an output matches what a page shows: `…` in a line matches anything, a line of `…` any number of lines."""
    pattern = ""
    for line in shown.rstrip().splitlines():
        words = "[^\\n]*".join(re.escape(part) for part in line.rstrip().split("…"))
        pattern += "(?:[^\\n]*\\n)*" if line.strip() == "…" else f"{words}\\n"
    lines = "".join(f"{line.rstrip()}\n" for line in output.rstrip().splitlines())
    return re.fullmatch(pattern, lines) is not None


def headings(page: str) -> set[str]:
    """Anchors of the page's headings, as GitHub makes them."""
    anchors: set[str] = set()
    for line in prose(page).splitlines():
        found = re.match(r"#{1,6} +(.*)", line)
        if found is None:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1].strip())
        anchor = plain = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        number = 0
        while anchor in anchors:
            number += 1
            anchor = f"{plain}-{number}"
        anchors.add(anchor)
    return anchors
