"""Checkpoints that are either complete or absent.

A checkpoint is written to `step-N.attempt-A.partial`, sealed with a list of its files, renamed to `step-N`, and only then
named in `LATEST`. A run that was killed at any moment finds the last sealed checkpoint. A superseded attempt that still
runs writes to folders with its own number, and is stopped before it renames anything.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from seele_trainer.frozen_model import FrozenModel
from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.durable import put_in_place, write_file
from seele_trainer.termination import ExpectedFailure

logger = logging.getLogger(__name__)

STATE_FILE = "state.json"
LATEST_FILE = "LATEST"
HASHED_BYTES = 64 * 2**20
"""Larger files are checked by size only: hashing tens of gigabytes would delay a restart."""


class CheckpointError(ExpectedFailure):
    """A checkpoint cannot be written or read. The message names it and says what to do."""


class FileSeal(FrozenModel):
    """Size in bytes and, for small files, the SHA-256 of a checkpoint's file."""

    size: int
    sha256: str | None


class RunState(FrozenModel):
    """The driver's part of a checkpoint: the state at a step boundary, except for the learner's."""

    step: int
    policy_version: int
    data_fingerprint: str
    sampler: dict[str, Any]
    strategy: dict[str, Any]
    files: dict[str, FileSeal] = Field(default_factory=dict)
    """Seal of each file of the checkpoint, by path inside it."""


class Checkpoints:
    """The folder `checkpoints/` of one run, as one attempt writes it."""

    def __init__(self, root: Path, keep: int, attempt: Attempt) -> None:
        self._root = root
        self._keep = keep
        self._attempt = attempt

    def begin(self, step: int) -> Path:
        """An empty folder for the parts of a checkpoint. Leftovers of interrupted saves are removed.

        Raises Superseded if a newer attempt has begun.
        """
        self._attempt.check()
        partial = self._partial(step)
        for pattern in ("step-*.partial", ".step-*"):
            for leftover in self._root.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise CheckpointError(f"cannot write a checkpoint to {partial}: {error}; check the run's volume") from error
        return partial

    def commit(self, state: RunState) -> Path:
        """Seal the folder returned by `begin` and make it the latest checkpoint.

        Raises CheckpointError, or Superseded if a newer attempt has begun; older checkpoints stay valid.
        """
        partial = self._partial(state.step)
        final = self._root / f"step-{state.step}"
        try:
            sealed = state.model_copy(update={"files": _seal(partial)})
            write_file(partial / STATE_FILE, sealed.model_dump_json(by_alias=True))
            # Checked immediately before each rename: writing may have hung while the node was disconnected.
            put_in_place(partial, final, before_rename=self._attempt.check)
            write_file(self._root / LATEST_FILE, final.name, before_rename=self._attempt.check)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise CheckpointError(
                f"cannot write checkpoint {final}: {error}; the previous one is intact, free space and run again"
            ) from error
        self._prune(state.step)
        return final

    def latest(self) -> tuple[Path, RunState] | None:
        """The newest intact checkpoint, or None before the first.

        Damaged checkpoints are skipped with a warning. Raises CheckpointError if all are damaged, since starting again
        would silently discard the run.
        """
        damaged = []
        for folder in _newest_first(self._root):
            try:
                return folder, _open(folder)
            except CheckpointError as error:
                logger.warning("%s; trying the previous one", error)
                damaged.append(folder.name)
        if damaged:
            raise CheckpointError(
                f"every checkpoint in {self._root} is damaged ({', '.join(damaged)}): restore one, "
                "or remove the folder to start the run again from the beginning"
            )
        return None

    def _partial(self, step: int) -> Path:
        return self._root / f"step-{step}.attempt-{self._attempt.number}.partial"

    def _prune(self, newest: int) -> None:
        steps = sorted((int(path.name.removeprefix("step-")) for path in _newest_first(self._root)), reverse=True)
        for step in [step for step in steps if step <= newest][self._keep :]:
            shutil.rmtree(self._root / f"step-{step}", ignore_errors=True)


def latest_state(root: Path) -> RunState | None:
    """The newest readable state of a folder's checkpoints, for reports; None without one.

    Other files are not checked, and the folder may be written to at the same time.
    """
    for folder in _newest_first(root):
        try:
            return _read_state(folder)
        except CheckpointError as error:
            logger.debug("%s; trying the previous one", error)
    return None


def _newest_first(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = [path for path in root.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    folders.sort(key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
    pointer = root / LATEST_FILE
    if pointer.is_file():
        # A folder that was renamed but is not named here yet is complete too, and newer.
        named = root / pointer.read_text(errors="replace").strip()
        if named not in folders:
            logger.warning("%s names %s, which does not exist", pointer, named.name)
    return folders


def _read_state(folder: Path) -> RunState:
    try:
        return RunState.model_validate_json((folder / STATE_FILE).read_text())
    except (OSError, ValidationError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"checkpoint {folder} has no readable {STATE_FILE}") from error


def _open(folder: Path) -> RunState:
    state = _read_state(folder)
    for name, seal in state.files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != seal.size:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} is missing or truncated")
        if seal.sha256 is not None and _sha256(path) != seal.sha256:
            raise CheckpointError(f"checkpoint {folder} is damaged: {name} was changed after it was written")
    return state


def _seal(folder: Path) -> dict[str, FileSeal]:
    seals = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            size = path.stat().st_size
            sha256 = _sha256(path) if size <= HASHED_BYTES else None
            seals[path.relative_to(folder).as_posix()] = FileSeal(size=size, sha256=sha256)
    return seals


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
