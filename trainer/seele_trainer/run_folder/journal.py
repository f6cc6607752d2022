"""A run's JSON-lines files: records are appended one by one, survive a kill, and are truncated on resume."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Self, TypeVar

from pydantic import ValidationError

from seele_trainer.frozen_model import FrozenModel
from seele_trainer.run_folder.durable import write_file
from seele_trainer.termination import ExpectedFailure


class JournalError(ExpectedFailure):
    """A file of records cannot be read. The message names the file, the line and what to do."""


Record = TypeVar("Record", bound=FrozenModel)


def read_records(path: Path, kind: type[Record]) -> list[Record]:
    """All records of a JSON-lines file, in order; empty if the file does not exist.

    An incomplete last line is skipped: it is still being written, or its writer was killed. Raises JournalError for any
    other line that is not a record.
    """
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(_whole_lines(path.read_bytes()), start=1):
        try:
            records.append(kind.model_validate_json(line))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the line"
            raise JournalError(
                f"{path}, line {number}: {where}: {first['msg']}. "
                "Delete the line, or use the version of seele that wrote it"
            ) from error
    return records


class Journal:
    """Appends records to a JSON-lines file. Lines are passed to the operating system before `append` returns.

    On opening, an incomplete last line is removed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        _drop_torn_line(path)
        self._file = path.open("ab")

    def append(self, *records: FrozenModel) -> None:
        """Append records, one line each, with camelCase keys."""
        # A single write, so that a kill truncates at most the last line.
        self._file.write(_lines(records))
        self._file.flush()

    def replace(self, *records: FrozenModel) -> None:
        """Atomically replace the content with these records."""
        self._file.close()
        write_file(self.path, _lines(records))
        self._file = self.path.open("ab")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _lines(records: Iterable[FrozenModel]) -> bytes:
    return b"".join(record.model_dump_json(by_alias=True).encode() + b"\n" for record in records)


def _whole_lines(content: bytes) -> list[bytes]:
    return content.split(b"\n")[:-1]


def _drop_torn_line(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
