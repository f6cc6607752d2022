"""Commands for runs in a cluster against a real API server, with no operator but the test."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from seele_operator.client import runs as following
from seele_operator.client import submit
from tests.integration.client.client_runs import Cluster
from tests.support.control_plane import ControlPlane


@pytest.fixture
def cluster(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.admin_kubeconfig))
    monkeypatch.setattr(following, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(submit, "OPERATOR_ANSWER_SECONDS", 0.0)
    return Cluster(control_plane, tmp_path)


@pytest.fixture
def operator(cluster: Cluster) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does something while a command waits."""
    threads: list[threading.Thread] = []

    def start(act: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=act, daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)
