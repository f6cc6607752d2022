import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from seele_trainer.evaluation.evaluate import (
    CALLS_IN_FLIGHT,
    Examiner,
    LoadedBenchmark,
    completions_needed,
    load_benchmarks,
)
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutUnavailable, Sampling
from tests.support.run_folder import run_config
from tests.support.text_answers import IdleEngine


class DigitEngine(IdleEngine):
    """Answers the prompt (p,) greedily with p; of n samples the first p are right and the others are 0."""

    def __init__(self, fail_after: int | None = None) -> None:
        super().__init__()
        self.samplings: list[Sampling] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self._fail_after = fail_after

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        if self._fail_after is not None and len(self.samplings) >= self._fail_after:
            raise RolloutUnavailable("no server is left")
        self.samplings.append(sampling)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        # Later chunks end first, so that an order by completion would be wrong.
        for _ in range(max(1, 50 - len(self.samplings))):
            await asyncio.sleep(0)
        self.in_flight -= 1
        return [self._answers(prefix[0], sampling) for prefix in prefixes]

    def _answers(self, number: int, sampling: Sampling) -> list[Completion]:
        right = [sampling.temperature == 0 or index < number for index in range(sampling.n)]
        reason = "length" if number == 9 else "stop"
        return [Completion((number if ok else 0,), (-0.1,), reason, 3) for ok in right]  # type: ignore[arg-type]


class EqualTexts:
    def __init__(self, times_out_on: str = "") -> None:
        self._times_out_on = times_out_on

    async def check(self, items: Sequence[tuple[str, str]]) -> list[bool | None]:
        return [None if text == self._times_out_on else text == expected for text, expected in items]


def decode(tokens: Sequence[int]) -> str:
    return "".join(map(str, tokens))


def digits(numbers: Sequence[int], expected: Sequence[int], samples: int = 0) -> LoadedBenchmark:
    return LoadedBenchmark("digits", tuple((n,) for n in numbers), tuple(map(str, expected)), samples)


def examiner(engine: DigitEngine, times_out_on: str = "", answered: Callable[[int], None] = lambda _: None) -> Examiner:
    grader = Grader(EqualTexts(times_out_on), decode)  # type: ignore[arg-type]
    return Examiner(engine, grader, temperature=0.6, max_tokens=8, seed=5, answered=answered)


async def test_greedy_accuracy_is_the_share_of_right_answers_at_temperature_zero() -> None:
    engine = DigitEngine()
    score = (await examiner(engine).scores([digits([1, 2, 3, 9], [1, 2, 7, 9])]))["digits"]
    # Right, but the answer of 9 was cut off before it was marked.
    assert (score.problems, score.greedy_accuracy, score.truncated) == (4, 0.5, 0.25)
    assert (score.sampled_accuracy, score.samples) == (None, 0)
    assert [(s.n, s.temperature, s.max_tokens) for s in engine.samplings] == [(1, 0.0, 8)]


async def test_avg_at_k_is_the_mean_over_all_samples() -> None:
    engine = DigitEngine()
    score = (await examiner(engine).scores([digits([1, 2, 3], [1, 2, 7], samples=4)]))["digits"]
    assert score.greedy_accuracy == pytest.approx(2 / 3)
    # Right: 1 of 4, 2 of 4, and none of the third problem's, whose answer is 7.
    assert score.sampled_accuracy == pytest.approx((1 + 2 + 0) / 12)
    assert score.samples == 4
    assert [(s.n, s.temperature) for s in engine.samplings] == [(1, 0.0), (4, 0.6)]


async def test_many_problems_are_sent_in_parts_and_keep_their_order() -> None:
    engine = DigitEngine()
    numbers = [index % 9 for index in range(3000)]
    counts: list[int] = []
    benchmark = digits(numbers, numbers)
    scores = await examiner(engine, answered=counts.append).scores([benchmark])
    assert scores["digits"].greedy_accuracy == 1.0
    assert sum(counts) == completions_needed([benchmark]) == 3000
    assert len(counts) > 1
    assert 1 < engine.most_in_flight <= CALLS_IN_FLIGHT
    assert len({sampling.seed for sampling in engine.samplings}) == len(engine.samplings)


async def test_a_check_that_times_out_counts_as_wrong_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        scores = await examiner(DigitEngine(), times_out_on="2").scores([digits([1, 2], [1, 2])])
    assert scores["digits"].greedy_accuracy == 0.5
    assert "digits: the check of 1 answers timed out, which count as wrong" in caplog.text


async def test_a_lost_engine_ends_the_evaluation_with_the_engines_own_error() -> None:
    numbers = [1] * 3000
    with pytest.raises(RolloutUnavailable, match="no server is left"):
        await examiner(DigitEngine(fail_after=2)).scores([digits(numbers, numbers)])


def test_benchmarks_are_read_and_tokenised_with_the_template_of_the_run(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({"one": 1, "two": 2, "?": 0}, unk_token="?"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="?")
    path = tmp_path / "test.jsonl"
    path.write_text(
        "".join(
            json.dumps({"problem": text, "answer": expected}) + "\n" for text, expected in (("one", 7), ("two", "8"))
        )
    )
    evaluation = {
        "benchmarks": [
            {"title": "words", "path": str(path), "samples": 2, "fields": {"answer": "answer", "solution": None}}
        ]
    }
    (benchmark,) = load_benchmarks(run_config(evaluation=evaluation), tokenizer)
    assert benchmark == LoadedBenchmark("words", ((1,), (2,)), ("7", "8"), 2)
