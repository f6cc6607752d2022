"""Rules about data sets and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from seele_operator.api.problems import shown
from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import Rules, Values

RULES = Rules()

_BENCHMARKS = "spec.evaluation.benchmarks"

_TITLE = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


@RULES.add(
    "spec.dataset.fields.solution",
    "null leaves nothing to cut hints from; name the column with solutions, or that with lists of steps in fields.steps",
    "self.format != 'generic' || has(self.fields.solution) || has(self.fields.steps)",
    "spec.dataset",
)
def _solutions(spec: SeeleRunSpec) -> Iterator[Values]:
    columns = spec.dataset.fields
    if spec.dataset.format == "generic" and columns.solution is None and columns.steps is None:
        yield {}


@RULES.add(
    _BENCHMARKS + "[{index}].fields.answer",
    "null, as is solution, leaves nothing to check answers against; name one of the columns",
    "self.format != 'generic' || has(self.fields.solution) || has(self.fields.answer)",
    _BENCHMARKS + "[]",
)
def _answers(spec: SeeleRunSpec) -> Iterator[Values]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        columns = benchmark.fields
        if benchmark.format == "generic" and columns.solution is None and columns.answer is None:
            yield {"index": index}


@RULES.add(
    _BENCHMARKS + "[{index}].title",
    "[{title} ]cannot be used in metrics and on the command line; "
    "use at most 63 letters, digits, hyphens, dots and underscores, such as gsm8k",
    f"self.matches('^{_TITLE}$')",
    _BENCHMARKS + "[].title",
)
def _titles(spec: SeeleRunSpec) -> Iterator[Values]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        if not re.fullmatch(_TITLE, benchmark.title):
            yield {"index": index, "title": shown(benchmark.title)}
