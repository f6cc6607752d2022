"""The six benchmarks of arXiv 2509.06923 (Table 1): their data sets and columns."""

from difflib import get_close_matches

from seele_trainer.config import DATA_FORMATS, DATA_SUFFIXES, Benchmark, Fields
from seele_trainer.data.problem import BadDataError

_QUESTION_AND_FINAL_ANSWER = Fields(problem="question", answer="final_answer", solution=None, id="id")

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.title: benchmark
    for benchmark in (
        Benchmark(title="gsm8k", name="openai/gsm8k", subset="main", split="test", format="gsm8k"),
        Benchmark(
            title="math500",
            name="HuggingFaceH4/MATH-500",
            split="test",
            fields=Fields(problem="problem", answer="answer", id="unique_id"),
        ),
        # The answer is taken from the solution's last box: not all files of this set have a column for it.
        Benchmark(
            title="minerva_math", name="zwhe99/simplerl-minerva-math", split="test", fields=Fields(problem="problem")
        ),
        Benchmark(
            title="olympiadbench", name="zwhe99/simplerl-OlympiadBench", split="test", fields=_QUESTION_AND_FINAL_ANSWER
        ),
        Benchmark(
            title="aime24",
            name="HuggingFaceH4/aime_2024",
            split="train",
            fields=Fields(problem="problem", answer="answer", id="id"),
            samples=32,
        ),
        Benchmark(
            title="amc23",
            name="math-ai/amc23",
            split="test",
            fields=Fields(problem="question", answer="answer", solution=None, id="id"),
            samples=32,
        ),
    )
}
"""By title. AIME24 and AMC23 are small, so they are also sampled 32 times (avg@32), as in the paper."""


def known_benchmark(title: str, path: str | None = None) -> Benchmark:
    """The benchmark of that title, from the Hugging Face hub or from a local file in the same format.

    Raises BadDataError for an unknown title or file type.
    """
    benchmark = BENCHMARKS.get(title)
    if benchmark is None:
        nearest = get_close_matches(title, BENCHMARKS, n=1)
        guess = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise BadDataError(f"unknown benchmark {title!r}; use {', '.join(BENCHMARKS)}{guess}")
    if path is None:
        return benchmark
    if not path.endswith(DATA_SUFFIXES):
        raise BadDataError(f'the file of {title}, "{path}", {DATA_FORMATS}')
    return benchmark.model_copy(update={"name": None, "subset": None, "path": path})
