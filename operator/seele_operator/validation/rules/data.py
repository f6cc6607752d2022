"""Data: rules of a SeeleRun, in Python and in CEL."""

from __future__ import annotations

import re
from collections.abc import Iterator

from seele_operator.api.problems import shown, yaml_path
from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import Rule

_TITLE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def _solutions(spec: SeeleRunSpec) -> Iterator[str]:
    columns = spec.dataset.fields
    if spec.dataset.format == "generic" and columns.solution is None and columns.steps is None:
        yield (
            "spec.dataset.fields.solution: null leaves nothing to cut hints from; "
            "name the column with solutions, or that with lists of steps in fields.steps"
        )
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        columns = benchmark.fields
        if benchmark.format == "generic" and columns.solution is None and columns.answer is None:
            place = yaml_path(("spec", "evaluation", "benchmarks", index, "fields", "answer"))
            yield f"{place}: null, as is solution: nothing to check against; name one of the columns"


def _benchmarks(spec: SeeleRunSpec) -> Iterator[str]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        if not _TITLE.fullmatch(benchmark.title):
            place = yaml_path(("spec", "evaluation", "benchmarks", index, "title"))
            yield (
                f"{place}: {shown(benchmark.title)} cannot stand in metrics and on the command line; "
                "use at most 63 letters, digits, hyphens, dots and underscores, such as gsm8k"
            )


def _source(place: str) -> Iterator[Rule]:
    yield Rule(
        place,
        "has(self.name) != has(self.path)",
        f"{place}: give exactly one of `name` (Hugging Face data set) and `path` (local file)",
    )
    yield Rule(
        place,
        r"!has(self.path) || self.path.matches('[^/][.](jsonl|json|parquet)(/[.]?)*$')",
        f"{place}: `path` has another ending; use a .jsonl, .json or .parquet file",
    )


_BENCHMARK = "spec.evaluation.benchmarks[]"

_DATA = (
    *_source("spec.dataset"),
    Rule(
        "spec.dataset",
        "self.format != 'generic' || has(self.fields.solution) || has(self.fields.steps)",
        "spec.dataset.fields.solution: null leaves nothing to cut hints from; name the column with solutions, or that "
        "with lists of steps in fields.steps",
    ),
    *_source(_BENCHMARK),
    Rule(
        _BENCHMARK,
        "self.format != 'generic' || has(self.fields.solution) || has(self.fields.answer)",
        f"{_BENCHMARK}.fields.answer: null, as is solution: nothing to check against; name one of the columns",
    ),
    Rule(
        f"{_BENCHMARK}.title",
        "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$')",
        f"{_BENCHMARK}.title: cannot stand in metrics and on the command line; use at most 63 letters, digits, "
        "hyphens, dots and underscores, such as gsm8k",
    ),
)
