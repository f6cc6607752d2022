"""The folder of a run on this machine: created, locked and compared with the run before anything is started."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from seele_operator.api.types import BadRunError
from seele_operator.decide.accept import differences
from seele_operator.plan.names import CONFIG_KEY
from seele_trainer.config import TrainerConfig
from seele_trainer.run_folder.attempt import AttemptFileError, ConfigError, read_tree, record_attempt, recorded_attempt
from seele_trainer.run_folder.durable import write_file

LOCK = ".lock"
_FOLDERS = ("checkpoints", "weights", "logs")


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, locked by this process."""

    path: Path
    attempt: int
    """How often the run was started, from 1."""
    lock: int
    """File descriptor that holds the lock."""

    @property
    def resumed(self) -> bool:
        """Whether the run was started before."""
        return self.attempt > 1


@contextlib.contextmanager
def open_run_folder(path: Path, config: str) -> Iterator[RunFolder]:
    """Create or reopen the folder of the run with this configuration (YAML). Raises BadRunError with nothing changed.

    If the block raises BadRunError, the run was refused before it started, and the new folder is removed again.
    """
    _check_kind(path)
    created = _make(path)
    with _locked(path) as lock:
        # Checked again: another process may have used the folder until now.
        new = _check_kind(path)
        try:
            if not new:
                _check_same(path, config)
            yield RunFolder(path, _count_start(path, config), lock)
        except BadRunError:
            if new:
                _remove(path, created)
            raise


def _check_kind(path: Path) -> bool:
    """Whether the folder holds no run yet. Raises BadRunError if it holds anything else."""
    if not path.exists():
        return True
    if not path.is_dir():
        raise BadRunError([f"--out: {path} is a file; give a new folder, or the folder of a run"])
    if (path / CONFIG_KEY).exists():
        for name in _FOLDERS:
            if (path / name).is_file():
                raise BadRunError([f"--out: {path / name} is a file, and a run has a folder there; move the file away"])
        return False
    if {entry.name for entry in path.iterdir()} - {LOCK}:
        raise BadRunError([f"--out: {path} contains files but no run; give a new or an empty folder"])
    return True


def _remove(path: Path, created: Path | None) -> None:
    """Remove a new folder, with the parents created for it, or the content of a folder that was empty before."""
    if created is not None:
        shutil.rmtree(created)
        return
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _make(path: Path) -> Path | None:
    """Create the folder; returns the topmost folder that was created, None if none was."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        raise BadRunError([f"--out: {path} cannot be created: {error.strerror}; give another folder"]) from error
    return missing[-1] if missing else None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    try:
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BadRunError([f"--out: {path} cannot be written: {error.strerror}; give another folder"]) from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BadRunError(
                [f"--out: {path} is in use by another `seele run`; wait until it has ended, or stop it"]
            ) from error
        yield lock
    finally:
        os.close(lock)


def _has_trained(path: Path) -> bool:
    """Whether a checkpoint, damaged or not, or the record of a step would be lost with the configuration."""
    journal = path / "metrics.jsonl"
    checkpoints = (each for each in path.glob("checkpoints/step-*") if each.suffix != ".partial")
    return any(checkpoints) or (journal.is_file() and journal.stat().st_size > 0)


def _with_newer_fields(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stored configuration with the defaults of the fields that it lacks because an older version wrote it."""
    try:
        return TrainerConfig.model_validate(stored).model_dump(mode="json", by_alias=True)
    except ValidationError:
        return stored


def _check_same(path: Path, config: str) -> None:
    """Raise BadRunError if the run has another configuration. One that never trained may get any."""
    try:
        stored = _with_newer_fields(read_tree(path / CONFIG_KEY))
    except ConfigError as error:
        raise BadRunError([f"--out: {error}, or a new folder"]) from error
    different = differences(stored, yaml.safe_load(config))
    if different and not _has_trained(path):
        # Its only line would be the accuracy of the model before training, with the old configuration.
        (path / "eval.jsonl").unlink(missing_ok=True)
        return
    if different:
        raise BadRunError(
            f"--out: {path} holds a run with another configuration; undo this change, or give a new folder: {line}"
            for line in different
        )


def _count_start(path: Path, config: str) -> int:
    try:
        attempt = recorded_attempt(path) + 1
        write_file(path / CONFIG_KEY, config)
        record_attempt(path, attempt)
    except AttemptFileError as error:
        raise BadRunError([f"--out: {error}"]) from error
    except OSError as error:
        raise BadRunError(
            [f"--out: {error.filename} cannot be written: {error.strerror}; free space there, or give another folder"]
        ) from error
    return attempt
