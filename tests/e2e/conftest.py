"""Fixtures of tests that carry out whole runs."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from seele_trainer.quickstart.__main__ import Recipe, make
from tests.e2e.watched_run import QuickstartRun, watched_quickstart
from tests.support import REPOSITORY

ALL = "SEELE_E2E_ALL"
LEFT_OUT = ("disturbance", "real_model")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`make test` leaves out what takes half an hour or a download; `make e2e` runs it."""
    if os.environ.get(ALL):
        return
    for item in items:
        if any(item.get_closest_marker(marker) for marker in LEFT_OUT):
            item.add_marker(pytest.mark.skip(reason=f"run by `make e2e`, which sets {ALL}"))


@pytest.fixture(scope="session", autouse=True)
def quickstart_model() -> Path:
    """The quickstart's base model and problems."""
    folder = REPOSITORY / ".cache" / "quickstart"
    make(folder, Recipe())
    return folder


@pytest.fixture(scope="session")
def quickstart_run(quickstart_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickstartRun]:
    """A finished run of the quickstart, and the Prometheus that watched it."""
    with ExitStack() as closing:
        yield watched_quickstart(tmp_path_factory.mktemp("quickstart"), closing)
