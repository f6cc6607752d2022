"""Checkpoints are whole or not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.run_folder.checkpoint import CheckpointError, Checkpoints, RunState

pytestmark = pytest.mark.unit


def state(step: int) -> RunState:
    return RunState(
        step=step, policy_version=step, data_fingerprint="f", sampler={"pass": 0}, strategy={"x": [0.1, 1 / 3]}
    )


def write(checkpoints: Checkpoints, step: int, content: str = "weights") -> Path:
    folder = checkpoints.begin(step)
    (folder / "learner").mkdir()
    (folder / "learner" / "rank-0.bin").write_text(content)
    return checkpoints.commit(state(step))


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path, keep=2, attempt=Attempt(tmp_path, 1))


def test_a_new_run_has_no_checkpoint(checkpoints: Checkpoints) -> None:
    assert checkpoints.latest() is None


def test_the_latest_checkpoint_comes_back_with_its_state(checkpoints: Checkpoints, tmp_path: Path) -> None:
    write(checkpoints, 1)
    folder = write(checkpoints, 2)
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == folder
    assert found[1].model_copy(update={"files": {}}) == state(2)
    assert (tmp_path / "LATEST").read_text() == "step-2"


def test_a_copy_that_somebody_put_there_and_a_spoilt_pointer_are_passed_over(
    checkpoints: Checkpoints, tmp_path: Path
) -> None:
    folder = write(checkpoints, 1)
    (tmp_path / "step-1.backup").mkdir()
    (tmp_path / "step-old").mkdir()
    (tmp_path / "LATEST").write_bytes(b"\xff\xfe")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == folder


def test_only_the_newest_are_kept(checkpoints: Checkpoints, tmp_path: Path) -> None:
    for step in (1, 2, 10):
        write(checkpoints, step)
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-10", "step-2"]


def test_a_checkpoint_that_was_cut_off_while_writing_does_not_count(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)
    (checkpoints.begin(2) / "rank-0.bin").write_text("half")
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "learner" / "rank-0.bin").write_text("weightz"),
        lambda folder: (folder / "learner" / "rank-0.bin").write_text("w"),
        lambda folder: (folder / "learner" / "rank-0.bin").unlink(),
        lambda folder: (folder / "state.json").write_text("{"),
        lambda folder: (folder / "state.json").unlink(),
    ],
    ids=["changed", "cut short", "missing", "broken state", "no state"],
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(checkpoints: Checkpoints, damage: object) -> None:
    write(checkpoints, 1)
    damage(write(checkpoints, 2))  # type: ignore[operator]
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1


def test_when_all_are_damaged_the_run_says_so_and_does_not_begin_anew(checkpoints: Checkpoints) -> None:
    (write(checkpoints, 1) / "state.json").unlink()
    with pytest.raises(CheckpointError, match="every checkpoint"):
        checkpoints.latest()


def test_a_full_disk_leaves_the_older_checkpoint_valid(
    checkpoints: Checkpoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(checkpoints, 1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("seele_trainer.run_folder.checkpoint.write_file", full)
        with pytest.raises(CheckpointError, match=r"No space left.*previous one is intact"):
            write(checkpoints, 2)
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1
    assert [path.name for path in tmp_path.glob("*.partial")] == []


def test_saving_a_step_again_replaces_it(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1, "old")
    folder = write(checkpoints, 1, "new")
    assert (folder / "learner" / "rank-0.bin").read_text() == "new"
    assert checkpoints.latest() is not None


def test_what_a_save_that_was_killed_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    (attempt(tmp_path, 1).begin(13) / "engine").write_text("half of it")
    attempt(tmp_path, 2).begin(20)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-20.attempt-2.partial"]


def attempt(run: Path, number: int) -> Checkpoints:
    return Checkpoints(run / "checkpoints", keep=2, attempt=Attempt(run, number))


def test_an_attempt_that_was_given_up_does_not_begin_to_save(tmp_path: Path) -> None:
    old, new = attempt(tmp_path, 1), attempt(tmp_path, 2)
    write(old, 1)
    begun = new.begin(2)
    with pytest.raises(Superseded, match=r"attempt 2 of this run has begun.*attempt 1 stops"):
        old.begin(2)
    assert begun.is_dir()


def test_a_save_that_hung_while_a_newer_attempt_saved_the_same_step_does_not_replace_it(tmp_path: Path) -> None:
    old, new = attempt(tmp_path, 1), attempt(tmp_path, 2)
    (old.begin(2) / "learner").mkdir()
    write(new, 2, "new")
    # A rank on a node that comes back goes on writing where it was told to.
    left = tmp_path / "checkpoints" / "step-2.attempt-1.partial" / "learner"
    left.mkdir(parents=True)
    (left / "rank-0.bin").write_text("old")
    with pytest.raises(Superseded):
        old.commit(state(2))
    found = new.latest()
    assert found is not None
    assert (found[0] / "learner" / "rank-0.bin").read_text() == "new"


def test_the_latest_checkpoint_is_not_named_by_an_attempt_that_was_given_up_a_moment_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = attempt(tmp_path, 1)
    write(old, 1)
    rename = Path.rename

    def overtaken(self: Path, target: Path) -> Path:
        renamed = rename(self, target)
        if target.name == "step-2":
            Attempt(tmp_path, 2).claim()
        return renamed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", overtaken)
        with pytest.raises(Superseded):
            write(old, 2)
    assert (tmp_path / "checkpoints" / "LATEST").read_text() == "step-1"
