import errno
import os
from pathlib import Path

import pytest

from seele_trainer.run_folder.durable import put_in_place, write_file


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is flushed and renamed, in order; temporary names are cut to the name that they stand for."""
    seen: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def plain(name: str) -> str:
        return name.lstrip(".").partition(".")[0]

    def fsynced(descriptor: int) -> None:
        seen.append(f"fsync {plain(Path(f'/proc/self/fd/{descriptor}').readlink().name)}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsynced)
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (seen.append(f"rename {plain(to.name)}"), replace(path, to))[1]
    )
    monkeypatch.setattr(Path, "rename", lambda path, to: (seen.append(f"rename {plain(to.name)}"), rename(path, to))[1])
    return seen


def test_a_file_is_on_disk_before_it_is_renamed_and_its_folder_afterwards(tmp_path: Path, events: list[str]) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_file(folder / "attempt", "2\n", before_rename=lambda: events.append("check"))
    assert events == ["fsync attempt", "check", "rename attempt", "fsync run"]
    assert (folder / "attempt").read_text() == "2\n"


def test_a_folder_is_on_disk_with_all_its_files_before_it_is_renamed(tmp_path: Path, events: list[str]) -> None:
    (tmp_path / "new" / "rank").mkdir(parents=True)
    (tmp_path / "new" / "rank" / "weights").write_text("w")
    put_in_place(tmp_path / "new", tmp_path / "step", before_rename=lambda: events.append("check"))
    assert set(events[:3]) == {"fsync rank", "fsync weights", "fsync new"}
    assert events[3:5] == ["check", "rename step"]
    assert events[5:] == [f"fsync {tmp_path.name}"]


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("superseded")])
def test_a_file_that_cannot_be_written_keeps_its_content_and_is_named(tmp_path: Path, failure: Exception) -> None:
    def fail() -> None:
        raise failure

    path = tmp_path / "config.yaml"
    path.write_text("old")
    with pytest.raises(type(failure)) as caught:
        write_file(path, "new", before_rename=fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(caught.value, OSError):
        assert caught.value.filename == str(path)


def test_a_file_in_what_is_not_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    with pytest.raises(NotADirectoryError) as caught:
        write_file(tmp_path / "run" / "attempt", "1\n")
    assert caught.value.filename == str(tmp_path / "run" / "attempt")
