"""The operator at work on a real API server: its own process, its own account, and pods that are played."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_runs import ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.operator_process import LEASE_SECONDS, OperatorProcess, grant
from tests.support.pods_driver import PodsDriver

# Neither outlives a module: tests elsewhere have the cluster to themselves.


@pytest.fixture(scope="module")
def driver(control_plane: ControlPlane) -> Iterator[PodsDriver]:
    """Plays the scheduler and the kubelets of all namespaces."""
    with PodsDriver(control_plane.admin) as pods:
        yield pods


@pytest.fixture(scope="session")
def operator_kubeconfig(control_plane: ControlPlane) -> Path:
    """Credentials of an account with the rights of rbac.yaml, and no more."""
    return grant(control_plane, "rbac.yaml")


@pytest.fixture(scope="module")
def _operator(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    process = OperatorProcess(operator_kubeconfig, log, f"--lease-duration={LEASE_SECONDS}", "--lease-name=shared")
    yield process
    process.kill()


@pytest.fixture
def operator(_operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator of all namespaces with the rights of rbac.yaml: running, whatever the test before did to it."""
    if not _operator.running:
        _operator.start()
    yield _operator
    if _operator.running:
        _operator.thaw()


@pytest.fixture
def runs(
    control_plane: ControlPlane, driver: PodsDriver, operator: OperatorProcess, request: pytest.FixtureRequest
) -> Iterator[ClusterRuns]:
    """Runs in a namespace of this test's own."""
    runs = ClusterRuns(control_plane, driver, operator)
    yield runs
    if request.session.testsfailed:
        runs.explain()
    runs.close()
    assert not runs.history.overlaps
