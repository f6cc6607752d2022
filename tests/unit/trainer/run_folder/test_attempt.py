"""The newest attempt at a run owns its folder."""

import math
from pathlib import Path

import pytest

from seele_operator.local.folder import open_run_folder
from seele_trainer.run_folder.attempt import Attempt, AttemptFileError, PodEnvironment, Superseded, recorded_attempt


def test_a_newer_attempt_takes_the_folder_and_the_older_one_stops(tmp_path: Path) -> None:
    first, second = Attempt(tmp_path / "run", 1), Attempt(tmp_path / "run", 2)
    first.claim()
    first.check()
    second.claim()
    second.check()
    with pytest.raises(Superseded, match=r"attempt 2 of this run has begun in .*run: attempt 1 stops"):
        first.check()
    assert (tmp_path / "run" / "attempt").read_text() == "2\n"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["attempt"]


def test_a_late_attempt_does_not_take_the_folder_back(tmp_path: Path) -> None:
    Attempt(tmp_path, 3).claim()
    with pytest.raises(Superseded):
        Attempt(tmp_path, 2).claim()
    assert recorded_attempt(tmp_path) == 3


def test_a_claim_overwritten_by_an_older_attempt_is_repeated(tmp_path: Path) -> None:
    newer, older = Attempt(tmp_path, 2), Attempt(tmp_path, 1)
    newer.claim()
    # The older one read the file before the claim, and writes only now.
    (tmp_path / "attempt").write_text("1\n")
    newer.check()
    with pytest.raises(Superseded):
        older.check()


def test_another_run_in_the_same_folder_counts_from_one_and_stops_the_first(tmp_path: Path) -> None:
    before = Attempt(tmp_path, 5, "uid-of-the-first")
    before.claim()
    again = Attempt(tmp_path, 1, "uid-of-the-second")
    again.claim()
    again.check()
    with pytest.raises(Superseded, match=r"another run \(uid-of-the-second\)"):
        before.check()
    restarted = Attempt(tmp_path, 2, "uid-of-the-second")
    restarted.claim()
    with pytest.raises(Superseded, match="attempt 2"):
        again.check()


def test_seele_run_and_trainers_count_in_the_same_file(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", "name: t\n") as folder:
        Attempt(folder.path, folder.attempt).claim()
    Attempt(tmp_path / "run", 2, "uid").claim()
    with open_run_folder(tmp_path / "run", "name: t\n") as folder:
        assert folder.attempt == 3
    with pytest.raises(Superseded):
        Attempt(tmp_path / "run", 2, "uid").check()


def test_the_folder_of_a_run_on_a_cluster_has_the_configuration_of_its_newest_attempt(tmp_path: Path) -> None:
    first, second = Attempt(tmp_path, 1, "uid"), Attempt(tmp_path, 2, "uid")
    first.keep_config("training: {steps: 10}\n")
    second.keep_config("training: {steps: 20}\n")
    assert (tmp_path / "config.yaml").read_text() == "training: {steps: 20}\n"


def test_the_configuration_written_by_seele_run_stays(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: t\n")
    Attempt(tmp_path, 1).keep_config("name: u\n")
    assert (tmp_path / "config.yaml").read_text() == "name: t\n"


def test_a_file_without_a_number_is_named(tmp_path: Path) -> None:
    (tmp_path / "attempt").write_text("many\n")
    with pytest.raises(AttemptFileError, match=r"attempt contains 'many'.*correct it"):
        Attempt(tmp_path, 1).claim()


def test_a_trainer_reads_its_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEELE_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("SEELE_ROLLOUT_URLS", "http://a:8000,http://b:8000")
    monkeypatch.setenv("SEELE_ROLLOUT_URLS_FILE", "/etc/seele/rollout-urls")
    monkeypatch.setenv("SEELE_ATTEMPT", "4")
    monkeypatch.setenv("SEELE_RUN_UID", "u")
    monkeypatch.setenv("SEELE_GRACE_SECONDS", "1800")
    found = PodEnvironment.from_environment()
    assert found.rollout_urls == ("http://a:8000", "http://b:8000")
    assert found.rollout_urls_file == Path("/etc/seele/rollout-urls")
    assert (found.attempt.number, found.grace_seconds) == (4, 1800)
    found.attempt.claim()
    assert (tmp_path / "run-uid").read_text() == "u\n"


def test_a_trainer_started_by_hand_is_the_next_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEELE_RUN_DIR", str(tmp_path))
    for name in ("SEELE_ATTEMPT", "SEELE_RUN_UID", "SEELE_ROLLOUT_URLS_FILE", "SEELE_GRACE_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "attempt").write_text("6\n")
    found = PodEnvironment.from_environment()
    assert (found.attempt.number, found.rollout_urls_file, found.grace_seconds) == (7, None, math.inf)
