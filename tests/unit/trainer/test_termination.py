"""How a trainer ends: its exit code, and the reason in the file where Kubernetes looks for it first."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_trainer import main
from seele_trainer.data.problem import BadDataError
from seele_trainer.main import launch
from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.checkpoint import CheckpointError
from seele_trainer.termination import MAX_BYTES, ExitCode, write_termination_message
from tests.support.run_folder import run_config


def ended(rank: int, exit_code: int) -> ChildFailedError:
    """What torchrun raises when a process has ended with that code, and another one after it."""
    failures = {rank: ProcessFailure(rank, 10, exit_code, "none"), 7: ProcessFailure(7, 11, 5, "none")}
    failures[rank].timestamp, failures[7].timestamp = 1, 2
    return ChildFailedError("gang", failures)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that a kubelet creates for a container."""
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setenv("TERMINATION_LOG", str(path))
    return path


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trainer's configuration, in an environment in which it can start."""
    for name in ("RANK", "LOCAL_RANK", "SEELE_ATTEMPT", "SEELE_RUN_UID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SEELE_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SEELE_HTTP_PORT", "0")
    monkeypatch.setenv("SEELE_BIND_HOST", "127.0.0.1")
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    path = tmp_path / "config.yaml"
    (tmp_path / "empty").mkdir()
    config = run_config(observability={"tensorboard": False}, model={"name": str(tmp_path / "empty")})
    tree = config.model_dump(mode="json", by_alias=True)
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_first_failure_is_the_reason(log: Path) -> None:
    write_termination_message("the disk is full\n")
    write_termination_message("rank 1: connection closed by peer")
    assert log.read_text() == "the disk is full"


def test_a_long_message_keeps_its_beginning_and_is_not_cut_within_a_character(log: Path) -> None:
    write_termination_message("why: " + "–" * 3000)
    assert log.stat().st_size <= MAX_BYTES
    assert log.read_text().startswith("why: –")


def test_outside_of_a_pod_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERMINATION_LOG", str(tmp_path / "none"))
    write_termination_message("the disk is full")
    assert list(tmp_path.iterdir()) == []


def test_the_reason_is_the_line_that_is_logged(log: Path, config: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert main.train(config) == ExitCode.BAD_INPUT
    assert "empty" in log.read_text()
    assert log.read_text() == caplog.messages[-1]


@pytest.mark.parametrize(
    ("cause", "grouped", "code"),
    [
        (None, False, ExitCode.BAD_INPUT),
        (None, True, ExitCode.BAD_INPUT),
        (OSError("no route"), False, ExitCode.FAILED),
        (OSError("x"), True, ExitCode.FAILED),
    ],
)
def test_bad_input_has_another_exit_code_than_a_disk_or_hub_that_does_not_answer(
    log: Path, config: Path, monkeypatch: pytest.MonkeyPatch, cause: OSError | None, grouped: bool, code: int
) -> None:
    def refuse(*_: object) -> NoReturn:
        refusal = BadDataError("row 3 has no answer; correct it")
        refusal.__cause__ = cause
        # A group is raised when several parts start at once.
        raise ExceptionGroup("starting", [refusal]) if grouped else refusal

    monkeypatch.setattr("seele_trainer.assemble.assemble", refuse)
    assert main.train(config) == code
    assert log.read_text() == "row 3 has no answer; correct it"


def test_a_superseded_attempt_says_so_and_changes_nothing(
    log: Path, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Attempt(tmp_path / "run", 3).claim()
    monkeypatch.setenv("SEELE_ATTEMPT", "2")
    assert main.train(config) == ExitCode.FAILED
    assert log.read_text().startswith("attempt 3 of this run has begun")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["attempt"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (CheckpointError("cannot write checkpoint step-3: free space"), "cannot write checkpoint step-3: free space"),
        (ZeroDivisionError("division by zero"), "rank 1: ZeroDivisionError: division by zero"),
    ],
)
def test_a_follower_reports_its_own_failure(
    log: Path, config: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    class Follower:
        def follow(self) -> NoReturn:
            raise error

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("seele_trainer.assemble.build_learner", lambda _: Follower())
    if isinstance(error, CheckpointError):
        assert main.train(config) == ExitCode.FAILED
    else:
        with pytest.raises(ZeroDivisionError):
            main.train(config)
    assert log.read_text() == words


@pytest.mark.parametrize(
    ("read", "code", "words"),
    [
        ("attempt.read_config", 2, "/dev/null is not a run's configuration"),
        ("lambda _: 1 // 0", 1, "ZeroDivisionError"),
    ],
)
def test_a_rank_ends_with_its_last_words_and_is_not_unloaded(read: str, code: int, words: str) -> None:
    program = f"""
import atexit, runpy, sys
import seele_trainer.run_folder.attempt as attempt

atexit.register(print, "unloaded")
attempt.read_config = {read}
sys.argv = ["main", "/dev/null"]
print("before")
runpy.run_module("seele_trainer.main", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (code, "before\n")
    assert words in done.stderr


def test_a_gang_in_one_pod_has_as_long_to_stop_as_the_pod(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree: dict[str, Any] = yaml.safe_load(config.read_text())
    tree["trainer"]["processesPerReplica"] = 2
    config.write_text(yaml.safe_dump(tree))
    # Set first, so that monkeypatch restores what the code sets.
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "")
    monkeypatch.delenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT")
    launched: list[str] = []
    monkeypatch.setattr("seele_trainer.main.launch", launched.extend)
    main.train(config)
    assert "--nproc-per-node=2" in launched
    assert int(main.os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"]) > 3600


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (ended(1, -9), 137, "rank 1 was killed by SIGKILL"),
        (ended(0, 1), 1, "rank 0 ended with exit code 1"),
        (SignalException("stopped", signal.SIGTERM), 143, ""),
        (None, 0, ""),
    ],
)
def test_a_gang_ends_with_the_code_of_the_process_that_failed_first(
    log: Path, monkeypatch: pytest.MonkeyPatch, outcome: Exception | None, code: int, words: str
) -> None:
    def run(_: object) -> None:
        if outcome is not None:
            raise outcome

    monkeypatch.setattr("torch.distributed.run.run", run)
    assert launch(["--nproc-per-node=2", "-m", "seele_trainer.main"]) == code
    assert log.read_text() == words


def test_the_reason_of_the_process_that_failed_outranks_the_launchers(
    log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: object) -> NoReturn:
        write_termination_message("the disk is full")
        raise ended(0, 1)

    monkeypatch.setattr("torch.distributed.run.run", run)
    assert launch(["-m", "seele_trainer.main"]) == 1
    assert log.read_text() == "the disk is full"


def test_prepare_model_reports_why_it_failed(log: Path, config: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["prepare-model", "--config", str(config), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "has no config.json" in log.read_text()
    assert log.read_text() in result.stderr
