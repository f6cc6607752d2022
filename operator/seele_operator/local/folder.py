"""The folder of a run on this machine: made, locked, counted and compared before anything is started."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from seele_operator.api.problems import BadRunError
from seele_operator.plan.names import CONFIG_KEY
from seele_operator.validation.changes import differences
from seele_trainer.run_folder.attempt import AttemptFileError, record_attempt, recorded_attempt
from seele_trainer.run_folder.config_file import ConfigError, read_tree
from seele_trainer.run_folder.durable import write_file

LOCK = ".lock"


@dataclass(frozen=True)
class RunFolder:
    """An open run folder. Nobody else has it while it is open."""

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
    """Make or reopen the folder of the run with this configuration (YAML). Raises BadRunError, with nothing changed.

    If the block raises BadRunError, the run was refused before it began, and what was made for it here is taken away.
    """
    _check_kind(path)
    created = _make(path)
    with _locked(path) as lock:
        # Checked again: somebody else may have had the folder until now.
        new = _check_kind(path)
        try:
            if not new:
                _check_same(path, config)
            yield RunFolder(path, _count_start(path, config), lock)
        except BadRunError:
            if new:
                _take_away(path, created)
            raise


def _check_kind(path: Path) -> bool:
    """Whether there is no run in the folder yet. Raises BadRunError if there is something else."""
    if not path.exists():
        return True
    if not path.is_dir():
        raise BadRunError([f"--out: {path} is a file; give a new folder, or the folder of a run"])
    if (path / CONFIG_KEY).exists():
        return False
    if {entry.name for entry in path.iterdir()} - {LOCK}:
        raise BadRunError([f"--out: {path} has files in it and is no run's folder; give a new or an empty folder"])
    return True


def _take_away(path: Path, created: Path | None) -> None:
    """Undo the making of a new folder: all of it, or what was put into a folder that was there, empty."""
    if created is not None:
        shutil.rmtree(created)
        return
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _make(path: Path) -> Path | None:
    """Make the folder; the topmost folder that was missing, None where it was all there."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if missing:
            shutil.rmtree(missing[-1], ignore_errors=True)
        raise BadRunError([f"--out: {path} cannot be made: {error.strerror}; give another folder"]) from error
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


def _check_same(path: Path, config: str) -> None:
    try:
        stored = read_tree(path / CONFIG_KEY)
    except ConfigError as error:
        raise BadRunError([f"--out: {error}, or a new folder"]) from error
    different = differences(stored, yaml.safe_load(config))
    if different:
        raise BadRunError(
            f"--out: {path} holds a run that began differently; undo this, or give a new folder: {line}"
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
