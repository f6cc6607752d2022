"""Checkpoints that are either complete or absent.

A checkpoint is written to `step-N.attempt-A.partial`, sealed with a list of its files, renamed to `step-N`, and only then
named in `LATEST`. A run that was killed at any moment finds the last sealed checkpoint. A superseded attempt that still
runs writes to folders with its own number, and is stopped before it renames anything.

What a disk has damaged later is renamed to `step-N.damaged`, never deleted, and the checkpoint before it is used.
"""

import errno
import hashlib
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
DAMAGED_SUFFIX = ".damaged"
_SIGNATURE = b',"sha256":"'
HASHED_BYTES = 64 * 2**20
"""Larger files are checked by size only, to find a checkpoint soon. Their checksums are in `learner/learner.json`, and
the ranks share the work of comparing them before they load anything."""


class CheckpointError(ExpectedFailure):
    """A checkpoint cannot be written or read. The message names it and says what to do."""


class DamagedCheckpoint(CheckpointError):
    """A file of a checkpoint is missing or not as it was written, so another checkpoint has to be used."""


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
    sha256: str | None = None
    """SHA-256 of this state's JSON without this field, the last; None if an older version of Seele wrote it."""


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
            write_file(
                partial / STATE_FILE, _signed(sealed.model_dump_json(by_alias=True, exclude={"sha256"}).encode())
            )
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

        Damaged checkpoints are set aside. Raises CheckpointError if all are damaged, since starting again would silently
        discard the run.
        """
        for folder in _newest_first(self._root):
            try:
                return folder, _open(folder)
            except DamagedCheckpoint as damage:
                self.set_aside(folder, damage)
        damaged = sorted(path.name for path in self._root.glob(f"step-*{DAMAGED_SUFFIX}*"))
        if damaged:
            raise CheckpointError(
                f"every checkpoint in {self._root} is damaged ({', '.join(damaged)}): restore one from a backup, "
                "or remove the folder to start the run again from the beginning"
            )
        return None

    def set_aside(self, folder: Path, damage: DamagedCheckpoint) -> None:
        """Rename a damaged checkpoint, so that `latest` finds the one before it. Raises Superseded, as `begin` does."""
        taken = sum(1 for _ in self._root.glob(f"{folder.name}{DAMAGED_SUFFIX}*"))
        aside = folder.with_name(f"{folder.name}{DAMAGED_SUFFIX}{f'-{taken + 1}' if taken else ''}")
        self._attempt.check()
        try:
            folder.rename(aside)
        except OSError as error:
            raise CheckpointError(f"{damage}, and it cannot be renamed to {aside.name}: {error.strerror}") from error
        logger.warning("%s; it is now %s, and the checkpoint before it is used", damage, aside.name)

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


def newest_step(root: Path) -> int | None:
    """The step of a folder's newest checkpoint, whole or not; None without one."""
    folders = _newest_first(root)
    return int(folders[0].name.removeprefix("step-")) if folders else None


def _newest_first(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    folders = [path for path in root.glob("step-*") if path.name.removeprefix("step-").isdecimal() and path.is_dir()]
    folders.sort(key=lambda path: int(path.name.removeprefix("step-")), reverse=True)
    pointer = root / LATEST_FILE
    if pointer.is_file():
        # A folder that was renamed but is not named here yet is complete too, and newer.
        try:
            named = pointer.read_text(errors="replace").strip()
        except OSError as error:
            named = f"nothing ({error.strerror})"
        if named not in {folder.name for folder in folders}:
            logger.warning("%s names %r, which does not exist", pointer, named)
    return folders


def _read_state(folder: Path) -> RunState:
    damaged = f"checkpoint {folder} is damaged: {STATE_FILE}"
    with missing_is_damage(f"{damaged} is missing or unreadable"):
        content = (folder / STATE_FILE).read_bytes()
    try:
        state = RunState.model_validate_json(content)
    except ValidationError as error:
        raise DamagedCheckpoint(f"{damaged} is not the state of a run") from error
    if state.sha256 is not None and content != _signed(content.rpartition(_SIGNATURE)[0] + b"}"):
        raise DamagedCheckpoint(f"{damaged} was changed after it was written")
    return state.model_copy(update={"sha256": None})


def _open(folder: Path) -> RunState:
    state = _read_state(folder)
    for name, seal in state.files.items():
        path = folder / name
        with missing_is_damage(f"checkpoint {folder} is damaged: {name} is missing or unreadable"):
            if path.stat().st_size != seal.size:
                raise DamagedCheckpoint(f"checkpoint {folder} is damaged: {name} is truncated")
            if seal.sha256 is not None and _sha256(path) != seal.sha256:
                raise DamagedCheckpoint(f"checkpoint {folder} is damaged: {name} was changed after it was written")
    return state


@contextmanager
def missing_is_damage(message: str) -> Iterator[None]:
    """Raise DamagedCheckpoint for a file that is not there, or that the disk cannot read.

    Any other OSError says nothing about the file: a volume that is not mounted may be there in the next attempt.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO):
            raise
        raise DamagedCheckpoint(message) from error


def _signed(content: bytes) -> bytes:
    """The JSON of a state with its own checksum. It is taken of the bytes, which no later version writes otherwise."""
    return content[:-1] + _SIGNATURE + hashlib.sha256(content).hexdigest().encode() + b'"}'


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
