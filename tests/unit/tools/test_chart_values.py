"""The tables of the chart's values."""

import pytest

from tools.chart_values import BEGIN, END, UndescribedValue, Value, described_values, sections, with_table

TEXT = """\
# Of the file.

## Image

image:
  # Where it
  # comes from.
  repository: ghcr.io/x
  # Its tag.
  tag: ""
## Pods
# What they ask for.
resources:
  limits: {memory: 1Gi}
# Where they may run.
tolerations: []
"""


def test_each_comment_describes_the_value_below_it() -> None:
    assert described_values(TEXT) == [
        Value("Image", "image.repository", "ghcr.io/x", "Where it comes from."),
        Value("Image", "image.tag", "", "Its tag."),
        Value("Pods", "resources", {"limits": {"memory": "1Gi"}}, "What they ask for."),
        Value("Pods", "tolerations", [], "Where they may run."),
    ]


@pytest.mark.parametrize(
    ("text", "key"),
    [("a: 1\n", "a"), ("group:\n  # Has one.\n  a: 1\n  b: 2\n", "group.b"), ("empty: {}\n", "empty")],
)
def test_a_value_without_a_comment_is_refused(text: str, key: str) -> None:
    with pytest.raises(UndescribedValue, match=f"^{key}: write a comment"):
        described_values(text)


def test_each_section_has_a_table() -> None:
    lines = sections(described_values(TEXT)).splitlines()

    assert [line for line in lines if line.startswith("###")] == ["### Image", "### Pods"]
    assert '| `image.tag` | `""` | Its tag. |' in lines
    assert '| `resources` | `{"limits": {"memory": "1Gi"}}` | What they ask for. |' in lines


def test_only_the_text_between_the_marks_is_replaced() -> None:
    once = with_table(f"# Title\n{BEGIN}\nold\n{END}\nend\n", TEXT)

    assert once.startswith(f"# Title\n{BEGIN}\n\n### Image")
    assert once.endswith(f"|\n\n{END}\nend\n")
    assert "old" not in once
    assert with_table(once, TEXT) == once


@pytest.mark.parametrize("readme", ["# Title\n", f"{BEGIN}\n", f"{END}\n{BEGIN}\n", f"{BEGIN}{END}\n"])
def test_a_readme_without_the_marks_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="add the lines `<!-- values"):
        with_table(readme, TEXT)
