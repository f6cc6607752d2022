"""Runs of two steps of the real training loop, with a learner that counts and an engine that knows the answers."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seele_trainer.collect import Collector
from seele_trainer.config import TrainerConfig
from seele_trainer.data.sampler import ProblemSampler
from seele_trainer.evaluation.evaluate import LoadedBenchmark
from seele_trainer.learner.learner import Abandoned, Stopping, UpdateStats, never
from seele_trainer.learner.sample import Sample
from seele_trainer.loop import Loop, RunParts
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutUnavailable, Sampling
from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.checkpoint import Checkpoints, DamagedCheckpoint
from seele_trainer.strategies import build_strategy
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.weights.directory import WeightsDirectory
from tests.support.text_answers import RIGHT, WRONG, IdleEngine, TextVerifier, decode, problem
from tests.support.waiting import Clock

PROBLEMS = [problem(number) for number in range(4)]


class CountingLearner:
    """A learner whose state is the number of its updates. Each adds 1/4 nat to the log-probability of the right answer.

    `begun` is called with the number of each update, after which it may be stopped.
    """

    def __init__(self, begun: Callable[[int], None], exported: Callable[[Path], None]) -> None:
        self.updates = 0
        self._begun = begun
        self._exported = exported

    checkpoint_bytes = 600_000_000

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def update(self, samples: Sequence[Sample], stopping: Stopping) -> UpdateStats:
        self._begun(self.updates + 1)
        # The loop hears of the stop while the learner computes.
        await asyncio.sleep(0)
        if stopping():
            raise Abandoned
        self.updates += 1
        return UpdateStats(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, len(samples), 0, 0.0, applied=True)

    async def logprobs(self, sequences: Sequence[Sequence[int]], stopping: Stopping = never) -> list[Any]:
        if stopping():
            raise Abandoned
        return [
            np.array([0.25 * self.updates * (token == RIGHT[0]) for token in sequence[1:]], dtype=np.float32)
            for sequence in sequences
        ]

    async def decoy_logprobs(self, sequences: Sequence[Sequence[int]], head_scale: float) -> list[Any]:
        return [row + head_scale for row in await self.logprobs(sequences)]

    async def export(self, directory: Path, *, untie: bool, head_scale: float = 1.0) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.json").write_text("{}")
        self._exported(directory)

    async def save(self, directory: Path) -> None:
        directory.mkdir()
        (directory / "updates").write_text(str(self.updates))

    async def load(self, directory: Path) -> None:
        if not (directory / "updates").read_text().isdecimal():
            raise DamagedCheckpoint(f"{directory} is damaged")
        self.updates = int((directory / "updates").read_text())


class Engine(IdleEngine):
    """Answers every second prompt right.

    `on_greedy` is called with the number of each held-out request, `on_rollout` when a round is sampled.
    """

    def __init__(self, on_greedy: Callable[[int], None], on_rollout: Callable[[], None]) -> None:
        super().__init__()
        self._on_greedy = on_greedy
        self._on_rollout = on_rollout
        self._greedy = 0

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        self._on_rollout()
        return [Completion(RIGHT if i % 2 else WRONG, (-0.1, -0.1), "stop", 0) for i in range(sampling.n)]

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        if sampling.temperature == 0:
            self._greedy += 1
            self._on_greedy(self._greedy)
            # A stop at this moment is seen before the answer.
            await asyncio.sleep(0.01)
        return [[Completion(RIGHT, (-0.1, -0.1), "stop", 0)] * sampling.n for _ in prefixes]


async def run_loop(
    folder: Path,
    *,
    stop_at_evaluation: int | None = None,
    stop_at_update: int | None = None,
    updates_per_step: int = 1,
    round_seconds: float = 0.0,
    save_every: int = 1,
    save_minutes: float = 1000.0,
    lost_at_round: int | None = None,
    data: str = "same",
    number: int = 1,
    overtaken_at_round: int | None = None,
    overtaken_at_evaluation: int | None = None,
    overtaken_at_export: str | None = None,
    look: Callable[[Recorder], None] = lambda _: None,
    leave: Callable[[Recorder], None] = lambda _: None,
    evaluate_every: int = 1,
    grace_seconds: float = 1800.0,
    **hints: str,
) -> list[str | None]:
    """One attempt at a run of two steps in `folder`; returns the answer of /healthz after each round was sampled.

    The servers are lost at round `lost_at_round`; at `overtaken_at_round`, the next attempt takes the folder. `look` is
    called in every round, `leave` at the end.
    """
    config = TrainerConfig.model_validate(
        {
            "name": "t",
            "model": {"name": "m"},
            "dataset": {"path": "d.jsonl"},
            "training": {"steps": 2, "problems_per_step": 2, "problems_per_update": 2 // updates_per_step},
            "hints": {"rounds": 2, "rollouts_per_round": 2, "unhinted_probes": 1, **hints},
            "evaluation": {"every_steps": evaluate_every},
            "checkpoints": {"every_steps": save_every, "every_minutes": save_minutes},
            "rollout": {"max_concurrent_problems": 1},
            "observability": {"tensorboard": False},
        }
    )
    stop = asyncio.Event()
    clock, health = Clock(), []
    verifier = TextVerifier()
    with Recorder(folder, config, clock=clock) as recorder:

        def sampled() -> None:
            clock.now += round_seconds
            health.append(recorder.problem())
            look(recorder)
            if len(health) == lost_at_round:
                raise RolloutUnavailable("no server is left")
            if len(health) == overtaken_at_round:
                Attempt(folder, number + 1).claim()

        def held_out(count: int) -> None:
            if count == stop_at_evaluation:
                stop.set()
            if count == overtaken_at_evaluation:
                Attempt(folder, number + 1).claim()

        def begun(update: int) -> None:
            if update == stop_at_update:
                stop.set()

        def exported(directory: Path) -> None:
            if directory.name == overtaken_at_export:
                Attempt(folder, number + 1).claim()

        attempt = Attempt(folder, number)
        attempt.claim()
        engine = Engine(held_out, sampled)
        parts = RunParts(
            config=config,
            run_dir=folder,
            attempt=attempt,
            problems=PROBLEMS,
            data_fingerprint=data,
            benchmarks=[LoadedBenchmark("held-out", ((5,),), ("right",))],
            sampler=ProblemSampler(len(PROBLEMS), 2, 0),
            strategy=build_strategy(config),
            learner=CountingLearner(begun, exported),  # type: ignore[arg-type]
            engine=engine,
            verifier=verifier,  # type: ignore[arg-type]
            grader=(grader := Grader(verifier, decode)),  # type: ignore[arg-type]
            collector=Collector(config, engine, grader, 64),
            weights=WeightsDirectory(folder / "weights", attempt),
            checkpoints=Checkpoints(folder / "checkpoints", 2, attempt),
            recorder=recorder,
            decode=decode,
            canary_sequences=((1, 2),),
            canary_tolerance=0.1,
            answer_tokens=8,
        )
        try:
            await Loop(parts, stop, clock, grace_seconds).run()
        finally:
            leave(recorder)
    return health
