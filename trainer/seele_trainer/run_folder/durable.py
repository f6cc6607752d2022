"""Files and folders that appear whole or not at all: written next to their place, flushed to disk, then renamed into it."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


def write_file(
    path: Path, content: str | bytes | Callable[[BinaryIO], None], before_rename: Callable[[], None] = lambda: None
) -> None:
    """Replace a file by some content, or by what `content` writes to the stream it is given.

    The old content stays if this fails or `before_rename`, called once the new one is on disk, raises.
    """
    aside = _aside(path)
    try:
        if callable(content):
            with aside.open("w+b") as stream:
                content(stream)
        else:
            aside.write_bytes(content.encode() if isinstance(content, str) else content)
        _fsync(aside)
        before_rename()
        aside.replace(path)
        _fsync(path.parent)
    except OSError as error:
        # Name the file that could not be written rather than its replacement.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):
            aside.unlink()


@contextmanager
def built_aside(directory: Path) -> Iterator[Path]:
    """A temporary sibling of `directory` to fill; it is removed at the end of the block unless it was renamed."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = _aside(directory)
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def put_in_place(aside: Path, directory: Path, before_rename: Callable[[], None] = lambda: None) -> None:
    """Rename a finished folder into its place; the folder that it replaces is deleted only afterwards.

    `before_rename` is called once the new folder is on disk; if it raises, nothing is renamed.
    """
    flush(aside)
    before_rename()
    old = directory.rename(_aside(directory)) if directory.exists() else None
    try:
        aside.rename(directory)
    except OSError:
        if old is not None:
            old.rename(directory)
        raise
    _fsync(directory.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def flush(directory: Path) -> None:
    """Flush a folder to disk, with everything in it."""
    for entry in (*directory.rglob("*"), directory):
        _fsync(entry)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
