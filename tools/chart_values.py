"""The table of the chart's values, made of the comments in its values.yaml.

A comment above a value describes it. A mapping without a comment of its own is a group, whose values have theirs; one with a
comment is a value as a whole. A line with two number signs begins a section.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tools.marks import between

BEGIN, END = "<!-- values: written by `make generated` -->", "<!-- end of values -->"


@dataclass(frozen=True)
class Value:
    """One value that a user may set."""

    section: str
    key: str
    """With the keys of its groups, such as `image.tag`."""
    default: Any
    description: str


class UndescribedValue(Exception):
    """A value has no comment, or nothing that it could be told apart from a group by."""


def described_values(text: str) -> list[Value]:
    """All values of a values.yaml, in its order. Raises UndescribedValue."""
    return list(_values(yaml.compose(text), text.splitlines(), ""))


def _values(group: yaml.MappingNode, lines: list[str], prefix: str) -> Iterator[Value]:
    for key_node, node in group.value:
        key, line = f"{prefix}{key_node.value}", key_node.start_mark.line
        description = _comment_above(lines, line)
        if description:
            section = next((found for found in reversed(lines[:line]) if found.startswith("## ")), "## ")
            yield Value(section.removeprefix("## "), key, _plain(node), description)
        elif isinstance(node, yaml.MappingNode) and node.value:
            yield from _values(node, lines, f"{key}.")
        else:
            raise UndescribedValue(f"{key}: write a comment above it, which becomes its line of the table")


def _comment_above(lines: list[str], line: int) -> str:
    comment: list[str] = []
    for above in reversed(lines[:line]):
        found = re.fullmatch(r"\s*# (.*)", above)
        if found is None:
            break
        comment.insert(0, found[1].strip())
    return " ".join(comment)


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def table(values: list[Value]) -> str:
    """The values as Markdown, a table for each section."""
    parts: list[str] = []
    for section in dict.fromkeys(value.section for value in values):
        rows = [value for value in values if value.section == section]
        cells = [f"| `{row.key}` | `{json.dumps(row.default)}` | {row.description} |" for row in rows]
        parts.append("\n".join([f"### {section}", "", "| value | default | |", "|---|---|---|", *cells]))
    return "\n\n".join(parts)


def with_table(readme: str, values: str) -> str:
    """The README with the table of `values`, a values.yaml, between its two marks. Raises ValueError where one is missing."""
    return between(readme, BEGIN, END, f"\n{table(described_values(values))}\n\n")
