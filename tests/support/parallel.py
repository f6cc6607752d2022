"""Distributes tests to the two workers of `make test`, and orders them.

Real trainings keep both cores busy and tests of the operator mostly wait, so each of these has a worker; other files are
distributed one by one.
"""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

RUNS = "runs"
"""Group of whole runs, which share a recorded run and the network of the test cluster's node."""

_FIRST = (("e2e",), ("integration", "operator"), ("integration",))
"""Folders in the order in which their tests start, the longest first."""


def group_of(path: PurePath) -> str:
    """The group of a test file (relative to the tests' folder); tests of a group share a worker."""
    return RUNS if path.parts[0] == "e2e" else path.as_posix()


def rank_of(path: PurePath) -> int:
    """Files of a lower rank start first."""
    found = (rank for rank, folder in enumerate(_FIRST) if path.parts[: len(folder)] == folder)
    return next(found, len(_FIRST))


class GroupScheduling(LoadScopeScheduling):
    """Assigns each group of tests to a worker, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        path = PurePath(nodeid.split("::", 1)[0])
        return group_of(path.relative_to("tests") if path.parts[0] == "tests" else path)
