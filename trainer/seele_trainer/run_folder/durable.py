"""Model folders that appear whole or not at all: written beside their place, flushed to disk, then renamed into it."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def built_aside(directory: Path) -> Iterator[Path]:
    """A temporary sibling of `directory` to fill; whatever happens in the block, nothing is left under its name."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    aside = directory.parent / f".{directory.name}.{uuid.uuid4().hex}"
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def flush(directory: Path) -> None:
    """Force a folder and the files in it onto the disk."""
    for entry in directory.iterdir():
        _fsync(entry)
    _fsync(directory)


def put_in_place(aside: Path, directory: Path) -> None:
    """Rename a finished folder into its place; what stood there before is gone only when the new one is there."""
    flush(aside)
    old: Path | None = None
    if directory.exists():
        old = directory.rename(directory.parent / f".{directory.name}.{uuid.uuid4().hex}")
    try:
        aside.rename(directory)
    except OSError:
        if old is not None:
            old.rename(directory)
        raise
    _fsync(directory.parent)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
