"""The versions of the weights: one is published, old ones are deleted, and only by the newest attempt."""

import os
from pathlib import Path

import pytest

from seele_trainer.run_folder.attempt import Attempt, Superseded
from seele_trainer.weights.directory import WeightsDirectory


def make_versions(root: Path, versions: list[int]) -> WeightsDirectory:
    weights = WeightsDirectory(root, Attempt(root, 1))
    for age, version in enumerate(versions):
        weights.folder(version).mkdir(parents=True)
        (weights.folder(version) / "config.json").write_text("{}")
        os.utime(weights.folder(version), (1000 + age, 1000 + age))
    return weights


def test_the_current_version_is_the_published_one(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2])
    assert weights.current() is None
    weights.publish(1)
    assert weights.current() == 1
    weights.publish(2)
    assert weights.current() == 2
    with pytest.raises(FileNotFoundError, match="export version 3"):
        weights.publish(3)


def test_pruning_keeps_the_newest_and_the_published(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2, 3, 4])
    weights.publish(1)
    weights.prune(keep=2)
    assert weights.versions() == [1, 3, 4]


def test_pruning_after_a_resume_deletes_the_lost_attempts_versions(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [11, 12, 10])
    weights.prune(keep=1)
    assert weights.versions() == [10]


def test_pruning_removes_the_remains_of_killed_exports_but_not_of_other_pods(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1, 2])
    root = weights.folder(1).parent
    for name in (
        "version-3.attempt-7",
        ".version-3.attempt-7.0123456789abcdef",
        ".initial.0123456789abcdef0123456789abcdef",
    ):
        (root / name).mkdir()
    weights.prune(keep=2)
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == [
        ".initial.0123456789abcdef0123456789abcdef",
        "version-1",
        "version-2",
    ]


def test_a_superseded_attempt_publishes_and_prunes_nothing(tmp_path: Path) -> None:
    old, new = WeightsDirectory(tmp_path, Attempt(tmp_path, 1)), WeightsDirectory(tmp_path, Attempt(tmp_path, 2))
    for weights, content in ((old, "old"), (new, "new")):
        weights.staged(3).mkdir()
        (weights.staged(3) / "config.json").write_text(content)
    new.publish(3)
    with pytest.raises(Superseded):
        old.publish(3)
    new.staged(4).mkdir()
    with pytest.raises(Superseded):
        old.prune(keep=1)
    assert (new.folder(3) / "config.json").read_text() == "new"
    assert new.current() == 3
    assert new.staged(4).is_dir()


def test_pruning_keeps_this_attempts_decoy_alone(tmp_path: Path) -> None:
    weights = make_versions(tmp_path, [1])
    earlier = WeightsDirectory(tmp_path, Attempt(tmp_path, 0)).decoy
    for folder in (weights.decoy, earlier):
        folder.mkdir()
    weights.prune(keep=1)
    assert weights.decoy.is_dir()
    assert not earlier.exists()
