"""The table of the chart's values, made from the comments in its values.yaml.

The comment above a value describes it. A mapping without a comment is a group whose values have their own comments; with a
comment it is one value. A line that starts with ## begins a section.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tools.markdown import between, table

BEGIN, END = "<!-- values: written by `make generated` -->", "<!-- end of values -->"


@dataclass(frozen=True)
class Value:
    """A value that users can set."""

    section: str
    key: str
    """Including its groups, such as `image.tag`."""
    default: Any
    description: str


class UndescribedValue(Exception):
    """A value has no comment."""


def described_values(text: str) -> list[Value]:
    """All values of a values.yaml, in order. Raises UndescribedValue."""
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
            raise UndescribedValue(f"{key}: write a comment above it, which becomes its description in the table")


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


def sections(values: list[Value]) -> str:
    """The values as Markdown, a table for each section."""
    return "\n".join(
        f"### {section}\n\n"
        + table(
            ("value", "default", "description"),
            [
                (f"`{one.key}`", f"`{json.dumps(one.default)}`", one.description)
                for one in values
                if one.section == section
            ],
        )
        for section in dict.fromkeys(value.section for value in values)
    )


def with_table(readme: str, values: str) -> str:
    """The README with the tables for `values`, the text of a values.yaml. Raises ValueError if it has no place for them."""
    return between(readme, BEGIN, END, f"\n{sections(described_values(values))}\n")
