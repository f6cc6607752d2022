"""What the training loop does around a step: evaluations, stopping at any moment, and going on afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seele_trainer.checkpoint import Checkpoints
from seele_trainer.collect import Collector
from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import Problem, TokenizedProblem
from seele_trainer.data.sampler import ProblemSampler
from seele_trainer.evaluate import LoadedBenchmark
from seele_trainer.learner import UpdateStats
from seele_trainer.loop import Interrupted, Loop, Parts
from seele_trainer.metrics import Recorder
from seele_trainer.records import EvaluationRecord, StepRecord
from seele_trainer.rollout.protocol import Canary, Completion, RequestCounts, Sampling, WeightSync
from seele_trainer.strategies import build_strategy
from seele_trainer.strategies.base import Sample
from seele_trainer.telemetry.journal import read_records
from seele_trainer.weights.directory import WeightsDirectory

pytestmark = pytest.mark.unit

RIGHT, WRONG = (7, 1), (8, 1)
PROBLEMS = [
    TokenizedProblem(Problem(str(name), "q", "s", "right"), (100 + name,), tuple(range(10, 20)), 8, (4, 8))
    for name in range(4)
]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a short run's time and has its own tests."""
    monkeypatch.setattr("seele_trainer.loop.write_report", lambda run_dir: None)


class CountingLearner:
    """A learner whose whole state is the number of its updates."""

    def __init__(self) -> None:
        self.updates = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def update(self, samples: Sequence[Sample]) -> UpdateStats:
        self.updates += 1
        return UpdateStats(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, len(samples), 0.0, applied=True)

    async def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[Any]:
        return [np.zeros(len(sequence) - 1, dtype=np.float32) for sequence in sequences]

    async def export(self, directory: Path, *, untie: bool) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text("{}")

    async def save(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "updates").write_text(str(self.updates))

    async def load(self, directory: Path) -> None:
        self.updates = int((directory / "updates").read_text())


class Engine:
    """Answers every second prompt right; `on_greedy` is called with the number of each held-out request."""

    def __init__(self, on_greedy: Callable[[int], None]) -> None:
        self.counts = RequestCounts()
        self._on_greedy = on_greedy
        self._greedy = 0

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        return WeightSync(version, 0.0, 0.0, 1)

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        return [Completion(RIGHT if i % 2 else WRONG, (-0.1, -0.1), "stop", 0) for i in range(sampling.n)]

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        if sampling.temperature == 0:
            self._greedy += 1
            self._on_greedy(self._greedy)
            # A stop that came just now is seen before the answer is.
            await asyncio.sleep(0.01)
        return [[Completion(RIGHT, (-0.1, -0.1), "stop", 0)] * sampling.n for _ in prefixes]


class TextVerifier:
    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def check(self, items: Sequence[tuple[str, str]]) -> list[bool | None]:
        return [text == gold for text, gold in items]


def decode(tokens: Sequence[int]) -> str:
    return "right" if tuple(tokens) == RIGHT else "wrong"


async def run(folder: Path, *, steps: int = 2, stop_at_evaluation: int | None = None) -> None:
    """One attempt at a run in `folder`, evaluated and saved after every step."""
    config = TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": "m"},
            "dataset": {"path": "d.jsonl"},
            "training": {"steps": steps, "problems_per_step": 2, "problems_per_update": 2},
            "hints": {"rounds": 2, "rollouts_per_round": 2, "unhinted_probes": 1},
            "evaluation": {"every_steps": 1},
            "checkpoints": {"every_steps": 1},
            "observability": {"tensorboard": False},
        }
    )
    stop = asyncio.Event()
    engine = Engine(lambda number: stop.set() if number == stop_at_evaluation else None)
    verifier = TextVerifier()
    with Recorder(folder, config) as recorder:
        parts = Parts(
            config=config,
            run_dir=folder,
            problems=PROBLEMS,
            data_fingerprint="same",
            benchmarks=[LoadedBenchmark("held-out", ((5,),), ("right",))],
            sampler=ProblemSampler(len(PROBLEMS), 2, 0),
            strategy=build_strategy(config),
            learner=CountingLearner(),  # type: ignore[arg-type]
            engine=engine,
            verifier=verifier,  # type: ignore[arg-type]
            collector=Collector(config, engine, verifier, decode, 64),  # type: ignore[arg-type]
            weights=WeightsDirectory(folder / "weights"),
            checkpoints=Checkpoints(folder / "checkpoints", 2),
            recorder=recorder,
            decode=decode,
            canary_sequences=((1, 2),),
            canary_tolerance=0.1,
            max_completion_tokens=8,
        )
        await Loop(parts, stop).run()


def evaluated(folder: Path) -> list[int]:
    return [record.step for record in read_records(folder / "eval.jsonl", EvaluationRecord)]


async def test_a_run_is_evaluated_before_it_and_after_every_step(tmp_path: Path) -> None:
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_the_last_evaluation_is_made_up_for_when_a_stop_cut_it_off(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=3)
    assert evaluated(tmp_path) == [0, 1]
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


async def test_an_evaluation_in_the_middle_that_a_stop_cut_off_is_made_up_for(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=2)
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_a_run_that_was_evaluated_and_killed_before_its_first_checkpoint_is_evaluated_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=2)
    # As if it had been killed: nothing was saved.
    shutil.rmtree(tmp_path / "checkpoints")
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]
