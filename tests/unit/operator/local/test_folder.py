"""The folder of a run: created, counted, locked, compared, and left alone if it holds anything else."""

import errno
from pathlib import Path

import pytest
import yaml

from seele_operator.api.types import BadRunError
from seele_operator.local.folder import LOCK, open_run_folder
from seele_trainer.config import TrainerConfig


def test_a_new_run_gets_its_folder_and_a_second_start_counts_up(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"

    for attempt in (1, 2):
        with open_run_folder(path, "name: one\n") as folder:
            assert (folder.attempt, folder.resumed) == (attempt, attempt == 2)
    assert (path / "config.yaml").read_text() == "name: one\n"


def test_allowed_changes_are_applied(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", "training: {steps: 10, seed: 0}\n"):
        pass
    with open_run_folder(tmp_path / "run", "training: {steps: 20, seed: 0}\n"):
        pass

    assert "steps: 20" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize("kept", ["checkpoints/step-20", "checkpoints/step-20.damaged", "metrics.jsonl"])
def test_another_run_is_refused_field_by_field(tmp_path: Path, kept: str) -> None:
    with open_run_folder(tmp_path / "run", "training: {steps: 10, seed: 0}\nmodel: {name: a}\n"):
        (tmp_path / "run" / kept).parent.mkdir(exist_ok=True)
        (tmp_path / "run" / kept).write_text("a step")
    with (
        pytest.raises(BadRunError) as refused,
        open_run_folder(tmp_path / "run", "training: {steps: 10, seed: 1}\nmodel: {name: b}\n"),
    ):
        pass

    assert [problem.rpartition("folder: ")[2] for problem in refused.value.problems] == [
        "training.seed: was 0 and is 1",
        'model.name: was "a" and is "b"',
    ]
    assert (tmp_path / "run" / "attempt").read_text() == "1\n"


def test_a_run_of_an_older_version_without_a_newer_field_is_resumed_with_its_default(tmp_path: Path) -> None:
    required = {"name": "one", "model": {"name": "a"}, "dataset": {"name": "b"}, "training": {"steps": 10}}
    tree = TrainerConfig.model_validate(required).model_dump(mode="json", by_alias=True)
    older = {**tree, "rollout": {name: value for name, value in tree["rollout"].items() if name != "stop"}}
    del older["rewards"]
    with open_run_folder(tmp_path / "run", yaml.safe_dump(older)):
        (tmp_path / "run" / "metrics.jsonl").write_text("a step")

    changed = {**tree, "rewards": {"truncated": "mask"}}
    with (
        pytest.raises(BadRunError, match=r"rewards\.truncated: was"),
        open_run_folder(tmp_path / "run", yaml.safe_dump(changed)),
    ):
        pass
    with open_run_folder(tmp_path / "run", yaml.safe_dump(tree)) as folder:
        assert folder.resumed


def test_a_run_that_never_trained_accepts_a_corrected_file(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", "training: {seed: 0}\nmodel: {name: mistyped}\n"):
        # As the first attempt leaves them: no step, and perhaps the accuracy of the model before training.
        (tmp_path / "run" / "checkpoints" / "step-20.attempt-1.partial").mkdir(parents=True)
        (tmp_path / "run" / "metrics.jsonl").touch()
        (tmp_path / "run" / "eval.jsonl").write_text("of the old model\n")
    with open_run_folder(tmp_path / "run", "training: {seed: 0}\nmodel: {name: right}\n") as folder:
        assert folder.attempt == 2

    assert "right" in (tmp_path / "run" / "config.yaml").read_text()
    assert not (tmp_path / "run" / "eval.jsonl").exists()


def test_two_runs_on_one_folder_are_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", "name: one\n"):
        with (
            pytest.raises(BadRunError, match="in use by another"),
            open_run_folder(tmp_path / "run", "name: one\n"),
        ):
            pass
        assert (tmp_path / "run" / "config.yaml").exists()


def test_a_folder_with_other_files_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(BadRunError, match="contains files but no run"), open_run_folder(tmp_path, "name: one\n"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("checkpoints", "", "checkpoints is a file, and a run has a folder there; move the file away"),
        ("weights", "", "weights is a file"),
        ("attempt", "9" * 5000, "instead of the number of attempts; correct it"),
        ("config.yaml", "[" * 100_000, "is not YAML"),
        ("config.yaml", "a: " + "9" * 5000, "is not YAML"),
    ],
)
def test_a_run_folder_with_a_file_of_another_form_is_refused(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    with open_run_folder(tmp_path / "run", "name: one\n"):
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(BadRunError, match=says), open_run_folder(tmp_path / "run", "name: one\n"):
        pass


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BadRunError), open_run_folder(path, "name: one\n"):
            pass


def refuse_late(path: Path) -> None:
    (path / "logs").mkdir()
    raise BadRunError(["no such program"])


@pytest.mark.parametrize("there", [True, False])
def test_a_run_that_is_refused_late_leaves_nothing_behind(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "runs" / "one"
    if there:
        path.mkdir(parents=True)

    with pytest.raises(BadRunError), open_run_folder(path, "name: one\n") as folder:
        refuse_late(folder.path)
    left = [entry.relative_to(tmp_path).as_posix() for entry in tmp_path.rglob("*")]
    assert left == (["runs", "runs/one"] if there else [])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_whatever_else_goes_wrong_the_folder_stays(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), open_run_folder(tmp_path / "run", "name: one\n"):
        raise error
    assert (tmp_path / "run" / LOCK).exists()


def test_a_resumed_run_is_never_removed(tmp_path: Path) -> None:
    with open_run_folder(tmp_path / "run", "name: one\n"):
        pass
    with pytest.raises(BadRunError), open_run_folder(tmp_path / "run", "name: one\n"):
        raise BadRunError(["no such program"])
    assert (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("name", ["config.yaml", "attempt"])
def test_a_folder_that_takes_no_files_is_refused_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = tmp_path / "run"
    real = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.name.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadRunError, match="No space left on device; free space"), open_run_folder(run, "name: one\n"):
        pass
    assert not run.exists()
