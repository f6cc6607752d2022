"""Which tests run one after the other on one worker, and which work is begun first: `make test` has two workers.

Runs that really train keep both cores busy, and tests of the operator mostly wait, so one worker has the former and the other
the latter; what is left over is shared out file by file.
"""

from __future__ import annotations

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

RUNS = "runs"
"""Whole runs: they share one that is watched, and the network of the node that pods run on."""

_FIRST = (("e2e",), ("integration", "operator"), ("integration",))
"""Folders in the order in which their tests are begun: the longest first, so that none is left for the end."""


def group_of(path: PurePath) -> str:
    """The tests with which those of the file `path` (from the tests' folder) have to share a worker."""
    return RUNS if path.parts[0] == "e2e" else path.as_posix()


def rank_of(path: PurePath) -> int:
    """Files of a lower rank are begun first."""
    found = (rank for rank, folder in enumerate(_FIRST) if path.parts[: len(folder)] == folder)
    return next(found, len(_FIRST))


class GroupScheduling(LoadScopeScheduling):
    """Sends the tests of one group to one worker, groups in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.split("::", 1)[0])
        return group_of(path.relative_to("tests") if path.parts[0] == "tests" else path)
