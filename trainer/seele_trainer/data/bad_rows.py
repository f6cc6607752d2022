"""What becomes of the rows of a data set that cannot be used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from seele_trainer.data.problem import BadDataError

SHOWN = 5
"""Bad rows that are named; the others are only counted."""


@dataclass
class BadRows:
    """The first bad row ends the run (`fail`), or all are skipped and counted, and the first few are named (`skip`)."""

    on_bad_row: Literal["fail", "skip"] = "fail"
    count: int = 0
    first: list[BadDataError] = field(default_factory=list)

    def add(self, error: BadDataError) -> None:
        """Count a bad row. Raises the error itself with `fail`."""
        if self.on_bad_row == "fail":
            raise error
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(error)

    def __str__(self) -> str:
        if not self.count:
            return "no bad rows"
        more = f"; and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        rows = "1 bad row" if self.count == 1 else f"{self.count} bad rows"
        return f"{rows}: {'; '.join(map(str, self.first))}{more}"
