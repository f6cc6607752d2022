"""The six benchmarks can be read from their published files."""

from pathlib import Path

import pytest

from seele_trainer.data.problem import BadDataError
from seele_trainer.data.sources import load_problems
from seele_trainer.evaluation.benchmarks import BENCHMARKS, known_benchmark

FILES = {
    "gsm8k": ("gsm8k/test.jsonl", 1319, "18"),
    "math500": ("benchmarks/math500.jsonl", 500, "\\left( 3, \\frac{\\pi}{2} \\right)"),
    "minerva_math": ("benchmarks/minerva_math.jsonl", 272, "1.6"),
    "olympiadbench": ("benchmarks/olympiadbench.jsonl", 675, "2"),
    "aime24": ("benchmarks/aime24.jsonl", 30, "204"),
    "amc23": ("benchmarks/amc23.jsonl", 40, "27"),
}


@pytest.mark.parametrize("title", FILES)
def test_the_published_file_of_each_benchmark_is_read_whole(shared_data: Path, title: str) -> None:
    file, rows, first_answer = FILES[title]
    problems = load_problems(known_benchmark(title, str(shared_data / file)), need_solution=False)
    assert len(problems) == rows
    assert problems[0].answer == first_answer
    assert all(problem.question.strip() and problem.answer.strip() for problem in problems)


def test_every_benchmark_has_a_place_on_the_hub_and_a_file_replaces_it() -> None:
    assert set(BENCHMARKS) == set(FILES)
    assert all(benchmark.name and benchmark.path is None for benchmark in BENCHMARKS.values())
    local = known_benchmark("gsm8k", "some/file.parquet")
    assert (local.name, local.subset, local.path, local.format) == (None, None, "some/file.parquet", "gsm8k")


def test_an_unknown_title_lists_the_known_ones() -> None:
    with pytest.raises(BadDataError, match=r"'math50'.*gsm8k, math500, minerva_math.*did you mean 'math500'"):
        known_benchmark("math50")


def test_a_file_of_another_type_is_refused() -> None:
    with pytest.raises(BadDataError, match=r"math\.csv.*not a \.jsonl"):
        known_benchmark("math500", "math.csv")
