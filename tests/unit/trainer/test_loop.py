"""The training loop around a step: evaluations, stopping at any moment, and resuming."""

import shutil
from pathlib import Path

import pytest

from seele_trainer.loop import Interrupted
from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.run_folder.checkpoint import CheckpointError, Checkpoints
from seele_trainer.run_folder.journal import read_records
from seele_trainer.run_folder.records import Descent, EvaluationRecord, Progress, StepRecord
from seele_trainer.termination import RefusedInput
from seele_trainer.weights.directory import WeightsDirectory
from tests.support.loop_run import run_loop


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a short run's time and has its own tests."""
    monkeypatch.setattr("seele_trainer.loop.write_report", lambda run_dir: None)


def evaluated(folder: Path) -> list[int]:
    return [record.step for record in read_records(folder / "eval.jsonl", EvaluationRecord)]


async def test_a_run_is_evaluated_before_it_and_after_every_step(tmp_path: Path) -> None:
    await run_loop(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_what_a_step_gained_is_measured_if_an_evaluation_follows(tmp_path: Path) -> None:
    await run_loop(tmp_path / "every", evaluate_every=1)
    await run_loop(tmp_path / "last", evaluate_every=0)
    every, last = (read_records(tmp_path / name / "metrics.jsonl", StepRecord) for name in ("every", "last"))
    # Half of the rollouts of both problems are right: they have a weight of 1/2 and have gained 1/4.
    gained = (Descent(accuracy=0.5, descent=0.0625),) * 2
    assert [record.descents for record in every] == [gained, gained]
    assert [record.descents for record in last] == [(), gained]


async def test_an_interrupted_last_evaluation_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run_loop(tmp_path, stop_at_evaluation=3)
    assert evaluated(tmp_path) == [0, 1]
    await run_loop(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


async def test_an_interrupted_evaluation_in_the_middle_is_repeated(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run_loop(tmp_path, stop_at_evaluation=2)
    await run_loop(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_a_run_killed_between_evaluation_and_first_checkpoint_is_evaluated_once(
    tmp_path: Path,
) -> None:
    with pytest.raises(Interrupted):
        await run_loop(tmp_path, stop_at_evaluation=2)
    # As after a kill, nothing was saved.
    shutil.rmtree(tmp_path / "checkpoints")
    await run_loop(tmp_path)
    assert evaluated(tmp_path) == [0, 1, 2]


async def test_a_step_with_long_rounds_is_healthy(tmp_path: Path) -> None:
    # A step has four rounds of ten minutes here. Half an hour without a heartbeat would be too long.
    health = await run_loop(tmp_path, round_seconds=600.0)
    assert health == [None] * 8


async def test_a_run_is_not_resumed_with_another_estimator(tmp_path: Path) -> None:
    await run_loop(tmp_path)
    with pytest.raises(RefusedInput, match="resume with the same estimator"):
        await run_loop(tmp_path, estimator="paper")


async def test_finished_steps_are_saved_if_the_servers_are_lost(tmp_path: Path) -> None:
    # The sixth round is in the second step. Without the loss nothing would be saved before step 1000.
    with pytest.raises(RolloutUnavailable):
        await run_loop(tmp_path, save_every=1000, lost_at_round=6)
    found = Checkpoints(tmp_path / "checkpoints", 2, Attempt(tmp_path, 1)).latest()
    assert found is not None
    assert found[1].step == 1
    assert (found[0] / "learner" / "updates").read_text() == "1"
    await run_loop(tmp_path, save_every=1000)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


def damage_learner(folder: Path, step: int) -> None:
    (folder / "checkpoints" / f"step-{step}" / "learner" / "updates").write_text("#")


async def test_a_checkpoint_that_the_learner_finds_damaged_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So every file is too large to be hashed before the learner is asked.
    monkeypatch.setattr("seele_trainer.run_folder.checkpoint.HASHED_BYTES", 0)
    await run_loop(tmp_path)
    straight = (tmp_path / "metrics.jsonl").read_text().splitlines()
    damage_learner(tmp_path, 2)
    await run_loop(tmp_path, number=2)
    names = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert names == ["step-1", "step-2", "step-2.damaged"]
    # The second step was trained again, after the first.
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]
    assert (tmp_path / "metrics.jsonl").read_text().splitlines()[0] == straight[0]
    assert (tmp_path / "checkpoints" / "step-2" / "learner" / "updates").read_text() == "2"


async def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # So every file is too large to be hashed before the learner is asked.
    monkeypatch.setattr("seele_trainer.run_folder.checkpoint.HASHED_BYTES", 0)
    await run_loop(tmp_path)
    for step in (1, 2):
        damage_learner(tmp_path, step)
    for number in (2, 3):
        with pytest.raises(
            CheckpointError, match=r"every checkpoint in .* is damaged .*step-1.damaged, step-2.damaged"
        ):
            await run_loop(tmp_path, number=number)


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
        await run_loop(
            tmp_path,
            save_every=1000,
            stop_at_update=updates_per_step + 1,
            updates_per_step=updates_per_step,
            evaluate_every=evaluate_every,
        )
    assert saved(tmp_path) == (1, updates_per_step)
    assert "stopping: step 1 is saved; what came after it is discarded" in caplog.text


async def test_a_run_stopped_in_an_update_and_resumed_is_the_same_as_an_uninterrupted_one(tmp_path: Path) -> None:
    await run_loop(tmp_path / "straight")
    with pytest.raises(Interrupted):
        await run_loop(tmp_path / "stopped", stop_at_update=2)
    await run_loop(tmp_path / "stopped", number=2)
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
        await run_loop(tmp_path, stop_at_update=1)
    assert saved(tmp_path) is None
    assert "stopping: there is nothing new to save; the same command starts again from the beginning" in caplog.text


@pytest.mark.parametrize("evaluate_every", [0, 1])
async def test_a_step_whose_weights_have_changed_is_finished_and_saved(
    tmp_path: Path, evaluate_every: int, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(Interrupted, match="resumes after step 1, which is saved"):
        await run_loop(tmp_path, save_every=1000, stop_at_update=2, updates_per_step=2, evaluate_every=evaluate_every)
    assert saved(tmp_path) == (1, 2)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1]
    assert "stopping: step 1 is finished and saved first" in caplog.text
    assert "If it is killed before, the same command starts again from the beginning" in caplog.text


async def test_progress_names_the_step_that_a_stop_would_save(tmp_path: Path) -> None:
    for every, expected in ((1000, [None] * 4 + [1] * 4), (1, [None] * 8)):
        seen: list[int | None] = []
        await run_loop(
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
        await run_loop(
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
    await run_loop(tmp_path, save_every=1000, round_seconds=600.0, save_minutes=minutes)
    assert {int(path.name.removeprefix("step-")) for path in (tmp_path / "checkpoints").glob("step-*")} == steps


async def test_a_run_is_not_resumed_on_other_training_data(tmp_path: Path) -> None:
    await run_loop(tmp_path)
    with pytest.raises(CheckpointError, match=r"the training problems have changed.*start a new run"):
        await run_loop(tmp_path, data="other")


async def test_an_attempt_superseded_in_the_middle_of_a_step_writes_nothing_more(tmp_path: Path) -> None:
    # The sixth round is in the second step.
    with pytest.raises(Superseded, match="attempt 2 of this run has begun"):
        await run_loop(tmp_path, overtaken_at_round=6)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1]
    assert WeightsDirectory(tmp_path / "weights", Attempt(tmp_path, 2)).current() == 1
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["LATEST", "step-1"]
    assert not (tmp_path / "final").exists()
    await run_loop(tmp_path, number=2)
    assert [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)] == [1, 2]


async def test_an_attempt_superseded_during_an_evaluation_records_nothing(tmp_path: Path) -> None:
    with pytest.raises(Superseded):
        await run_loop(tmp_path, overtaken_at_evaluation=3)
    assert evaluated(tmp_path) == [0, 1]
    assert not (tmp_path / "final").exists()


async def test_a_final_model_whose_export_hung_does_not_replace_a_newer_attempts(tmp_path: Path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "final" / "config.json").write_text("the newer one's")
    with pytest.raises(Superseded):
        await run_loop(tmp_path, overtaken_at_export="final.attempt-1")
    assert (tmp_path / "final" / "config.json").read_text() == "the newer one's"


async def test_the_final_model_replaces_leftovers_of_an_earlier_attempt(tmp_path: Path) -> None:
    for name in ("final", "final.attempt-1", ".final.attempt-1.0123"):
        (tmp_path / name).mkdir()
    await run_loop(tmp_path, number=2)
    assert (tmp_path / "final" / "config.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if "final" in path.name] == ["final"]


async def test_progress_names_the_checkpoint_that_a_run_resumed_from(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        await run_loop(tmp_path, stop_at_evaluation=2)
    seen: list[int | None] = []
    await run_loop(tmp_path, number=2, look=lambda recorder: seen.append(recorder.progress().last_checkpoint_step))
    assert seen[0] == 1
