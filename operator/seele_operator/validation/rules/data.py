"""Rules about data sets and benchmarks."""

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import HUB_ID, shown
from seele_operator.validation.rules.rule import Rule, Rules, Values, when
from seele_trainer.config import DATA_FORMATS, DATA_SUFFIXES, DISTINCT_TITLES, ONE_SOURCE, DatasetSource

_TITLE = "[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"


def _lacks(source: DatasetSource, column: str) -> bool:
    return source.format == "generic" and source.fields.solution is None and getattr(source.fields, column) is None


_SOURCES = ("spec.dataset", "spec.evaluation.benchmarks[]")

# The models check in Python where data comes from, and that titles differ.
RULES = Rules(
    [
        *(Rule(place, ONE_SOURCE, "has(self.name) != has(self.path)", place) for place in _SOURCES),
        *(
            Rule(f"{place}.path", DATA_FORMATS, "self.matches('[^/][.](jsonl|json|parquet)(/[.]?)*$')", f"{place}.path")
            for place in _SOURCES
        ),
    ]
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


@RULES.add("{field}", "{name} is not the ID of a Hugging Face data set, such as openai/gsm8k; {remedy}")
def _hub_ids(spec: SeeleRunSpec) -> Iterator[Values]:
    for source, place in (
        (spec.dataset, "spec.dataset"),
        *((one, f"spec.evaluation.benchmarks[{index}]") for index, one in enumerate(spec.evaluation.benchmarks)),
    ):
        suffix = PurePosixPath(source.name or "").suffix
        if source.name is not None and (suffix in {*DATA_SUFFIXES, ".csv"} or not HUB_ID.fullmatch(source.name)):
            is_file = suffix in DATA_SUFFIXES
            local = f"write path: {source.name}" if is_file else "set path to a .jsonl, .json or .parquet file"
            yield {"field": f"{place}.name", "name": shown(source.name), "remedy": f"for local data, {local}"}


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
