"""The training loop around a step: evaluations, stopping at any moment, and resuming."""

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seele_trainer.collect import Collector
from seele_trainer.config import TrainerConfig
from seele_trainer.data.sampler import ProblemSampler
from seele_trainer.evaluation.evaluate import LoadedBenchmark
from seele_trainer.learner.learner import Abandoned, Stopping, UpdateStats, never
from seele_trainer.learner.sample import Sample
from seele_trainer.loop import Interrupted, Loop, RunParts
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutUnavailable, Sampling
from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.run_folder.checkpoint import CheckpointError, Checkpoints, DamagedCheckpoint
from seele_trainer.run_folder.journal import read_records
from seele_trainer.run_folder.records import Descent, EvaluationRecord, Progress, StepRecord
from seele_trainer.strategies import build_strategy
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.termination import RefusedInput
from seele_trainer.weights.directory import WeightsDirectory
from tests.support.text_answers import RIGHT, WRONG, IdleEngine, TextVerifier, decode, problem

PROBLEMS = [problem(number) for number in range(4)]


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a short run's time and has its own tests."""
    monkeypatch.setattr("seele_trainer.loop.write_report", lambda run_dir: None)


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


class Clock:
    """A clock that only moves while a round is sampled, `step` seconds each time."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self._step = step

    def __call__(self) -> float:
        return self.now

    def tick(self) -> None:
        self.now += self._step


async def run(
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
    clock, health = Clock(round_seconds), []
    verifier = TextVerifier()
    with Recorder(folder, config, clock=clock) as recorder:

        def sampled() -> None:
            clock.tick()
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


def evaluated(folder: Path) -> list[int]:
    return [record.step for record in read_records(folder / "eval.jsonl", EvaluationRecord)]


async def test_a_run_is_evaluated_before_it_and_after_every_step(tmp_path: Path) -> None:
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_what_a_step_gained_is_measured_if_an_evaluation_follows(tmp_path: Path) -> None:
    await run(tmp_path / "every", evaluate_every=1)
    await run(tmp_path / "last", evaluate_every=0)
    every, last = (read_records(tmp_path / name / "metrics.jsonl", StepRecord) for name in ("every", "last"))
    # Half of the rollouts of both problems are right: they have a weight of 1/2 and have gained 1/4.
    gained = (Descent(accuracy=0.5, descent=0.0625),) * 2
    assert [record.descents for record in every] == [gained, gained]
    assert [record.descents for record in last] == [(), gained]


async def test_an_interrupted_last_evaluation_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=3)
    assert evaluated(tmp_path) == [0, 1]
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


async def test_an_interrupted_evaluation_in_the_middle_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=2)
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_a_run_killed_between_evaluation_and_first_checkpoint_is_evaluated_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=2)
    # As after a kill, nothing was saved.
    shutil.rmtree(tmp_path / "checkpoints")
    await run(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_a_step_with_long_rounds_is_healthy(tmp_path: Path) -> None:
    # A step has four rounds of ten minutes here. Half an hour without a heartbeat would be too long.
    health = await run(tmp_path, round_seconds=600.0)
    assert health == [None] * 8


async def test_a_run_is_not_resumed_with_another_estimator(tmp_path: Path) -> None:
    await run(tmp_path)
    with pytest.raises(RefusedInput, match="resume with the same estimator"):
        await run(tmp_path, estimator="paper")


async def test_finished_steps_are_saved_if_the_servers_are_lost(tmp_path: Path) -> None:
    # The sixth round is in the second step. Without the loss nothing would be saved before step 1000.
    with pytest.raises(RolloutUnavailable):
        await run(tmp_path, save_every=1000, lost_at_round=6)
    found = Checkpoints(tmp_path / "checkpoints", 2, Attempt(tmp_path, 1)).latest()
    assert found is not None
    assert found[1].step == 1
    assert (found[0] / "learner" / "updates").read_text() == "1"
    await run(tmp_path, save_every=1000)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


def damage_learner(folder: Path, step: int) -> None:
    (folder / "checkpoints" / f"step-{step}" / "learner" / "updates").write_text("#")


async def test_a_checkpoint_that_the_learner_finds_damaged_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So every file is too large to be hashed before the learner is asked.
    monkeypatch.setattr("seele_trainer.run_folder.checkpoint.HASHED_BYTES", 0)
    await run(tmp_path)
    straight = (tmp_path / "metrics.jsonl").read_text().splitlines()
    damage_learner(tmp_path, 2)
    await run(tmp_path, number=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-1", "step-2", "step-2.damaged"]
    # The second step was trained again, after the first.
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[0] == straight[0]
    assert (tmp_path / "checkpoints" / "step-2" / "learner" / "updates").read_text() == "2"


async def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So every file is too large to be hashed before the learner is asked.
    monkeypatch.setattr("seele_trainer.run_folder.checkpoint.HASHED_BYTES", 0)
    await run(tmp_path)
    for step in (1, 2):
        damage_learner(tmp_path, step)
    for number in (2, 3):
        with pytest.raises(
            CheckpointError, match=r"every checkpoint in .* is damaged .*step-1.damaged, step-2.damaged"
        ):
            await run(tmp_path, number=number)


def saved(folder: Path) -> tuple[int, int] | None:
    """Step of the newest checkpoint, and the number of updates of its learner."""
    found = Checkpoints(folder / "checkpoints", 2, Attempt(folder, 9)).latest()
    return None if found is None else (found[1].step, int((found[0] / "learner" / "updates").read_text()))


@pytest.mark.parametrize("evaluate_every", [0, 1])
@pytest.mark.parametrize("updates_per_step", [1, 2])
async def test_a_stop_before_a_steps_first_update_saves_the_step_before_it(
    tmp_path: Path, updates_per_step: int, evaluate_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted, match="resumes after step 1, which is saved"):
        await run(
            tmp_path,
            save_every=1000,
            stop_at_update=updates_per_step + 1,
            updates_per_step=updates_per_step,
            evaluate_every=evaluate_every,
        )
    assert saved(tmp_path) == (1, updates_per_step)
    assert "stopping: step 1 is saved; what came after it is discarded" in caplog.text


async def test_a_run_stopped_in_an_update_and_resumed_is_the_same_as_an_uninterrupted_one(tmp_path: Path) -> None:
    await run(tmp_path / "straight")
    with pytest.raises(Interrupted):
        await run(tmp_path / "stopped", stop_at_update=2)
    await run(tmp_path / "stopped", number=2)
    straight, stopped = (
        read_records(tmp_path / name / "metrics.jsonl", StepRecord) for name in ("straight", "stopped")
    )
    assert [record.rollouts for record in stopped] == [record.rollouts for record in straight]
    states = [(tmp_path / name / "checkpoints" / "step-2" / "state.json") for name in ("straight", "stopped")]
    assert states[0].read_bytes() == states[1].read_bytes()


async def test_a_stop_in_the_first_step_saves_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted, match="starts again from the beginning: no step is saved"):
        await run(tmp_path, stop_at_update=1)
    assert saved(tmp_path) is None
    assert "stopping: there is nothing new to save; the same command starts again from the beginning" in caplog.text


@pytest.mark.parametrize("evaluate_every", [0, 1])
async def test_a_step_whose_weights_have_changed_is_finished_and_saved(
    tmp_path: Path, evaluate_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted, match="resumes after step 1, which is saved"):
        await run(tmp_path, save_every=1000, stop_at_update=2, updates_per_step=2, evaluate_every=evaluate_every)
    assert saved(tmp_path) == (1, 2)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1]
    assert "stopping: step 1 is finished and saved first" in caplog.text
    assert "If it is killed before, the same command starts again from the beginning" in caplog.text


async def test_progress_names_the_step_that_a_stop_would_save(tmp_path: Path) -> None:
    for every, expected in ((1000, [None] * 4 + [1] * 4), (1, [None] * 8)):
        seen: list[int | None] = []
        await run(
            tmp_path / str(every),
            save_every=every,
            look=lambda recorder, seen=seen: seen.append(recorder.progress().unsaved_step),  # type: ignore[misc]
        )
        assert seen == expected


async def test_progress_says_how_long_a_stop_takes_and_that_one_is_under_way(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Progress] = []
    with pytest.raises(Interrupted):
        await run(
            tmp_path,
            stop_at_update=2,
            grace_seconds=2.0,
            look=lambda recorder: seen.append(recorder.progress()),
            leave=lambda recorder: seen.append(recorder.progress()),
        )
    # By size at first, 600 MB at 200 MB/s, and as measured after the first step.
    estimates = [progress.stop_seconds for progress in seen]
    assert estimates[0] == 3.0
    assert estimates[-1] is not None
    assert 0 < estimates[-1] < 1
    assert [progress.stopping for progress in (seen[0], seen[-1])] == [False, True]
    assert "a stop may take 3.0 s, if 200 MB are saved a second, and pods are killed after 2.0 s" in caplog.text
    assert "set runPolicy.terminationGracePeriodSeconds to 5" in caplog.text


@pytest.mark.parametrize(("minutes", "steps"), [(39.0, {1, 2}), (40.0, {1, 2}), (41.0, {2})])
async def test_a_step_is_also_saved_after_so_many_minutes(tmp_path: Path, minutes: float, steps: set[int]) -> None:
    # A step has four rounds of ten minutes here.
    await run(tmp_path, save_every=1000, round_seconds=600.0, save_minutes=minutes)
    assert {int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*")} == steps


async def test_a_run_is_not_resumed_on_other_training_data(tmp_path: Path) -> None:
    await run(tmp_path)
    with pytest.raises(CheckpointError, match=r"the training problems have changed.*start a new run"):
        await run(tmp_path, data="other")


async def test_an_attempt_superseded_in_the_middle_of_a_step_writes_nothing_more(tmp_path: Path) -> None:
    # The sixth round is in the second step.
    with pytest.raises(Superseded, match="attempt 2 of this run has begun"):
        await run(tmp_path, overtaken_at_round=6)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1]
    assert WeightsDirectory(tmp_path / "weights", Attempt(tmp_path, 2)).current() == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["LATEST", "step-1"]
    assert not (tmp_path / "final").exists()
    await run(tmp_path, number=2)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


async def test_an_attempt_superseded_during_an_evaluation_records_nothing(tmp_path: Path) -> None:
    with pytest.raises(Superseded):
        await run(tmp_path, overtaken_at_evaluation=3)
    assert evaluated(tmp_path) == [0, 1]
    assert not (tmp_path / "final").exists()


async def test_a_final_model_whose_export_hung_does_not_replace_a_newer_attempts(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("the newer one's")
    with pytest.raises(Superseded):
        await run(tmp_path, overtaken_at_export="final.attempt-1")
    assert (tmp_path / "final" / "config.json").read_text() == "the newer one's"


async def test_the_final_model_replaces_leftovers_of_an_earlier_attempt(tmp_path: Path) -> None:
    for name in ("final", "final.attempt-1", ".final.attempt-1.0123"):
        (tmp_path / name).mkdir()
    await run(tmp_path, number=2)
    assert (tmp_path / "final" / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if "final" in path.name] == ["final"]


async def test_progress_names_the_checkpoint_that_a_run_resumed_from(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run(tmp_path, stop_at_evaluation=2)
    seen: list[int | None] = []
    await run(tmp_path, number=2, look=lambda recorder: seen.append(recorder.progress().last_checkpoint_step))
    assert seen[0] == 1
