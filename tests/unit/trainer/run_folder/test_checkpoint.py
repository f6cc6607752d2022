"""Checkpoints are complete or absent."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.run_folder.checkpoint import CheckpointError, Checkpoints, RunState, latest_state

Damage = Callable[[Path], object]


def state(step: int) -> RunState:
    return RunState(
        step=step, policy_version=step, data_fingerprint="f", sampler={"pass": 0}, strategy={"x": [0.1, 1 / 3]}
    )


def write(checkpoints: Checkpoints, step: int, content: str = "weights") -> Path:
    folder = checkpoints.begin(step)
    (folder / "learner").mkdir()
    (folder / "learner" / "rank-0.bin").write_text(content)
    return checkpoints.commit(state(step))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: tuple[Damage, ...] = (flip, zero, shorten, empty, remove, make_a_folder)


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


def test_other_folders_and_a_damaged_pointer_are_ignored(checkpoints: Checkpoints, tmp_path: Path) -> None:
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


def test_an_incomplete_checkpoint_does_not_count(checkpoints: Checkpoints) -> None:
    write(checkpoints, 1)
    (checkpoints.begin(2) / "rank-0.bin").write_text("half")
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["learner/rank-0.bin", "state.json"])
def test_a_damaged_checkpoint_is_set_aside_for_the_previous_one(
    checkpoints: Checkpoints, tmp_path: Path, damage: Damage, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(checkpoints, 1)
    damage(write(checkpoints, 2) / name)
    content = sorted(path.name for path in (tmp_path / "step-2").rglob("*"))
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-1", "step-2.damaged"]
    assert sorted(path.name for path in (tmp_path / "step-2.damaged").rglob("*")) == content
    assert f"step-2 is damaged: {name}" in caplog.text
    assert "it is now step-2.damaged" in caplog.text


def test_any_changed_bit_of_a_state_is_found(checkpoints: Checkpoints, tmp_path: Path) -> None:
    path = write(checkpoints, 1) / "state.json"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert latest_state(tmp_path) is None, content[place - 5 : place + 5]
    path.write_bytes(content)
    assert latest_state(tmp_path) is not None


def test_a_state_of_an_older_version_has_no_checksum_and_is_read(checkpoints: Checkpoints) -> None:
    path = write(checkpoints, 1) / "state.json"
    path.write_bytes(path.read_bytes().rpartition(b',"sha256"')[0] + b"}")
    assert checkpoints.latest() is not None


@pytest.mark.parametrize("damage", [shorten, empty, remove], ids=lambda damage: damage.__name__)
def test_a_large_file_is_checked_by_size(
    checkpoints: Checkpoints, damage: Damage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seele_trainer.run_folder.checkpoint.HASHED_BYTES", 1)
    write(checkpoints, 1)
    damage(write(checkpoints, 2) / "learner" / "rank-0.bin")
    found = checkpoints.latest()
    assert found is not None
    assert found[1].step == 1


def test_if_all_are_damaged_the_run_fails_at_every_start_instead_of_starting_again(checkpoints: Checkpoints) -> None:
    for step in (1, 2):
        write(checkpoints, step)
    for step in (1, 2):
        (checkpoints._root / f"step-{step}" / "state.json").unlink()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"every checkpoint.*step-1\.damaged, step-2\.damaged.*restore one"):
            checkpoints.latest()


def test_a_step_that_is_damaged_twice_is_kept_twice(checkpoints: Checkpoints, tmp_path: Path) -> None:
    write(checkpoints, 1)
    for _ in range(3):
        remove(write(checkpoints, 2) / "state.json")
        assert checkpoints.latest() is not None
    kept = ["step-1", "step-2.damaged", "step-2.damaged-2", "step-2.damaged-3"]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == kept


def test_a_volume_that_does_not_answer_is_not_damage(checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(checkpoints, 1)

    def gone(path: Path) -> bytes:
        raise OSError(errno.ESTALE, "Stale file handle", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", gone)
        with pytest.raises(OSError, match="Stale file handle"):
            checkpoints.latest()
    assert folder.is_dir()


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_the_pointer_may_be_damaged(checkpoints: Checkpoints, tmp_path: Path, damage: Damage) -> None:
    folder = write(checkpoints, 1)
    damage(tmp_path / "LATEST")
    found = checkpoints.latest()
    assert found is not None
    assert found[0] == folder


def test_a_superseded_attempt_sets_nothing_aside(tmp_path: Path) -> None:
    old = attempt(tmp_path, 1)
    folder = write(old, 1)
    remove(folder / "state.json")
    Attempt(tmp_path, 2).claim()
    with pytest.raises(Superseded):
        old.latest()
    assert folder.is_dir()


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


def test_leftovers_of_a_killed_save_are_removed_by_the_next_one(tmp_path: Path) -> None:
    (attempt(tmp_path, 1).begin(13) / "engine").write_text("half of it")
    attempt(tmp_path, 2).begin(20)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-20.attempt-2.partial"]


def attempt(run: Path, number: int) -> Checkpoints:
    return Checkpoints(run / "checkpoints", keep=2, attempt=Attempt(run, number))


def test_a_superseded_attempt_does_not_begin_to_save(tmp_path: Path) -> None:
    old, new = attempt(tmp_path, 1), attempt(tmp_path, 2)
    write(old, 1)
    begun = new.begin(2)
    with pytest.raises(Superseded, match=r"attempt 2 of this run has begun.*attempt 1 stops"):
        old.begin(2)
    assert begun.is_dir()


def test_a_save_that_hung_does_not_replace_that_of_a_newer_attempt(tmp_path: Path) -> None:
    old, new = attempt(tmp_path, 1), attempt(tmp_path, 2)
    (old.begin(2) / "learner").mkdir()
    write(new, 2, "new")
    # A rank on a node that comes back continues to write to its old folder.
    leftover = tmp_path / "checkpoints" / "step-2.attempt-1.partial" / "learner"
    leftover.mkdir(parents=True)
    (leftover / "rank-0.bin").write_text("old")
    with pytest.raises(Superseded):
        old.commit(state(2))
    found = new.latest()
    assert found is not None
    assert (found[0] / "learner" / "rank-0.bin").read_text() == "new"


def test_an_attempt_superseded_between_the_renames_does_not_change_the_pointer(
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
