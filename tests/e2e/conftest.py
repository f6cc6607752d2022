"""What whole runs need."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from seele_trainer.quickstart.__main__ import Recipe, make
from tests.e2e.watched_run import QuickstartRun, watched_quickstart
from tests.support import REPOSITORY


@pytest.fixture(scope="session", autouse=True)
def quickstart_model() -> Path:
    """The quickstart's base model and problems."""
    folder = REPOSITORY / ".cache" / "quickstart"
    make(folder, Recipe())
    return folder


@pytest.fixture(scope="session")
def quickstart_run(quickstart_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuickstartRun]:
    """A run of the quickstart that is over, and the Prometheus that watched it."""
    with ExitStack() as closing:
        yield watched_quickstart(tmp_path_factory.mktemp("quickstart"), closing)


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """Wait for a condition with a deadline."""

    def wait(condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                pytest.fail(f"{what}: not within {seconds:g} s")
            time.sleep(0.1)

    return wait


@pytest.fixture
def leftovers() -> Callable[[Path], list[str]]:
    """Command lines of processes that still belong to a run's folder."""

    def find(out: Path) -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline", "environ"]):
            environment = process.info["environ"] or {}
            if environment.get("SEELE_RUN_DIR") == str(out) or any(
                str(out) in part for part in process.info["cmdline"] or ()
            ):
                found.append(" ".join(process.info["cmdline"] or ()))
        return found

    return find
