"""Rules about data sets and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import shown
from seele_operator.validation.rules.rule import Rule, Rules, Values, when
from seele_trainer.config import DATA_FORMATS, DISTINCT_TITLES, ONE_SOURCE, DatasetSource

_TITLE = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


def _lacks(source: DatasetSource, column: str) -> bool:
    return source.format == "generic" and source.fields.solution is None and getattr(source.fields, column) is None


# The models check in Python where data comes from, and that titles differ.
RULES = Rules(
    Rule(place, message, cel, place)
    for place in ("spec.dataset", "spec.evaluation.benchmarks[]")
    for message, cel in (
        (ONE_SOURCE, "has(self.name) != has(self.path)"),
        (
            f"`path` has another extension: {DATA_FORMATS}",
            "!has(self.path) || self.path.matches('[^/][.](jsonl|json|parquet)(/[.]?)*$')",
        ),
    )
)

RULES += [
    Rule(
        "spec.evaluation",
        DISTINCT_TITLES,
        "self.all(one, self.exists_one(other, other.title == one.title))",
        "spec.evaluation.benchmarks",
    ),
    Rule(
        "spec.dataset.fields.solution",
        "null leaves nothing to cut hints from; name the column with solutions, or that with lists of steps in fields.steps",
        "self.format != 'generic' || has(self.fields.solution) || has(self.fields.steps)",
        "spec.dataset",
        when(lambda spec: _lacks(spec.dataset, "steps")),
    ),
]


@RULES.add(
    "spec.evaluation.benchmarks[{index}].fields.answer",
    "null, as is solution, leaves nothing to check answers against; name one of the columns",
    "self.format != 'generic' || has(self.fields.solution) || has(self.fields.answer)",
    "spec.evaluation.benchmarks[]",
)
def _answers(spec: SeeleRunSpec) -> Iterator[Values]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        if _lacks(benchmark, "answer"):
            yield {"index": index}


@RULES.add(
    "spec.evaluation.benchmarks[{index}].title",
    "[{title} ]cannot be used in metrics and on the command line; "
    "use at most 63 letters, digits, hyphens, dots and underscores, such as gsm8k",
    f"self.matches('^{_TITLE}$')",
    "spec.evaluation.benchmarks[].title",
)
def _titles(spec: SeeleRunSpec) -> Iterator[Values]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        if not re.fullmatch(_TITLE, benchmark.title):
            yield {"index": index, "title": shown(benchmark.title)}
