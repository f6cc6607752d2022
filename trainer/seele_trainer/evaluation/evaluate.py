"""Held-out evaluation without hints: greedy pass@1 and, if requested, the mean over k sampled answers (avg@k)."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from seele_trainer.config import Benchmark, TrainerConfig
from seele_trainer.data.prompts import Template, encode_prompts
from seele_trainer.data.sources import load_problems
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutEngine, Sampling
from seele_trainer.run_folder.records import BenchmarkScore

logger = logging.getLogger(__name__)

COMPLETIONS_PER_CALL = 256
"""Completions requested in one call of the engine: enough to fill a server, few enough to show progress."""

CALLS_IN_FLIGHT = 4
"""Concurrent calls: while one waits for its longest completion, the others keep the servers busy."""


@dataclass(frozen=True)
class LoadedBenchmark:
    """Held-out problems as token ids with their expected answers, and how often to sample each (0: greedy only)."""

    title: str
    prompts: tuple[tuple[int, ...], ...]
    expected: tuple[str, ...]
    samples: int = 0


@dataclass(frozen=True)
class Answers:
    """Completions of a benchmark's problems, and for each whether it is right (None: the check timed out)."""

    completions: list[Completion]
    verdicts: list[bool | None]

    @property
    def accuracy(self) -> float:
        """Share of right answers; an answer whose check timed out counts as wrong."""
        return self.verdicts.count(True) / len(self.verdicts)

    @property
    def timeouts(self) -> int:
        """Answers whose check timed out."""
        return self.verdicts.count(None)

    @property
    def truncated(self) -> float:
        """Share of completions that hit the length limit."""
        return [completion.finish_reason for completion in self.completions].count("length") / len(self.completions)


@dataclass(frozen=True)
class Examiner:
    """Runs benchmarks on an engine without hints, and has the answers checked.

    `temperature` is that of sampled answers. `answered` is called with the number of completions each time some have been
    checked.
    """

    engine: RolloutEngine
    grader: Grader
    temperature: float
    max_tokens: int
    seed: int
    answered: Callable[[int], None]

    async def scores(self, benchmarks: Sequence[LoadedBenchmark]) -> dict[str, BenchmarkScore]:
        """Each benchmark's score by title: greedy pass@1 and, if it has k samples, their mean accuracy avg@k.

        A check that times out counts as a wrong answer and is logged. Raises RolloutUnavailable if the engine is lost.
        """
        return {benchmark.title: await self._score(benchmark) for benchmark in benchmarks}

    async def _score(self, benchmark: LoadedBenchmark) -> BenchmarkScore:
        greedy = await self._answers(benchmark, n=1, temperature=0.0)
        sampled = await self._answers(benchmark, benchmark.samples, self.temperature) if benchmark.samples else None
        timeouts = greedy.timeouts + (sampled.timeouts if sampled else 0)
        if timeouts:
            logger.warning(
                "%s: the check of %d answers timed out, which count as wrong; if there are many, raise verifier.timeoutSeconds",
                benchmark.title,
                timeouts,
            )
        return BenchmarkScore(
            problems=len(benchmark.prompts),
            greedy_accuracy=greedy.accuracy,
            sampled_accuracy=sampled.accuracy if sampled else None,
            samples=benchmark.samples,
            truncated=greedy.truncated,
        )

    async def _answers(self, benchmark: LoadedBenchmark, n: int, temperature: float) -> Answers:
        size = max(1, COMPLETIONS_PER_CALL // n)
        places = asyncio.Semaphore(CALLS_IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._chunk(benchmark, start, size, n, temperature, places))
                    for start in range(0, len(benchmark.prompts), size)
                ]
        except ExceptionGroup as failures:
            # Callers handle the engine's own errors, not groups of them.
            raise failures.exceptions[0] from failures
        chunks = [task.result() for task in tasks]
        return Answers(
            completions=[completion for chunk in chunks for completion in chunk.completions],
            verdicts=[verdict for chunk in chunks for verdict in chunk.verdicts],
        )

    async def _chunk(
        self, benchmark: LoadedBenchmark, start: int, size: int, n: int, temperature: float, places: asyncio.Semaphore
    ) -> Answers:
        # Each chunk has its own seed: with a shared one, equal prompts in two chunks would get equal samples.
        sampling = Sampling(n=n, max_tokens=self.max_tokens, temperature=temperature, seed=(self.seed + start) % 2**32)
        async with places:
            answers = await self.engine.generate_batch(benchmark.prompts[start : start + size], sampling)
        items = [
            (completion, expected)
            for completions, expected in zip(answers, benchmark.expected[start : start + size], strict=True)
            for completion in completions
        ]
        graded = await self.grader.grade(items)
        self.answered(len(graded))
        return Answers([one.completion for one in graded], [one.verdict for one in graded])


def load_benchmarks(config: TrainerConfig, tokenizer: PreTrainedTokenizerBase) -> list[LoadedBenchmark]:
    """Read and tokenise the benchmarks of a run with the prompt template of its training. Raises BadDataError."""
    template = config.dataset.prompt_template
    return [load_benchmark(benchmark, tokenizer, template) for benchmark in config.evaluation.benchmarks]


def load_benchmark(benchmark: Benchmark, tokenizer: PreTrainedTokenizerBase, template: Template) -> LoadedBenchmark:
    """Read and tokenise one benchmark. Raises BadDataError."""
    problems = load_problems(benchmark, need_solution=False)
    return LoadedBenchmark(
        title=benchmark.title,
        prompts=tuple(encode_prompts(tokenizer, [problem.question for problem in problems], template)),
        expected=tuple(problem.answer for problem in problems),
        samples=benchmark.samples,
    )


def completions_needed(benchmarks: Sequence[LoadedBenchmark]) -> int:
    """How many completions an examiner requests for the benchmarks."""
    return sum(len(benchmark.prompts) * (1 + benchmark.samples) for benchmark in benchmarks)
