"""The operator as a process on a real API server, with its own account and played pods."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_runs import ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.operator_process import LEASE_SECONDS, OperatorProcess, grant
from tests.support.pods_driver import PodsDriver

# Neither outlives a module: tests in other folders need the cluster without them.


@pytest.fixture(scope="module")
def driver(control_plane: ControlPlane) -> Iterator[PodsDriver]:
    """Plays the scheduler and the kubelets of all namespaces."""
    with PodsDriver(control_plane.admin) as pods:
        yield pods


@pytest.fixture(scope="session")
def operator_kubeconfig(control_plane: ControlPlane) -> Path:
    """Credentials of an account with exactly the permissions of rbac.yaml."""
    return grant(control_plane, "rbac.yaml")


@pytest.fixture(scope="module")
def _operator(operator_kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    process = OperatorProcess(operator_kubeconfig, log, f"--lease-duration={LEASE_SECONDS}", "--lease-name=shared")
    yield process
    process.kill()


@pytest.fixture
def operator(_operator: OperatorProcess) -> Iterator[OperatorProcess]:
    """The operator for all namespaces with the permissions of rbac.yaml: running, whatever earlier tests did to it."""
    if not _operator.running:
        _operator.start()
    yield _operator
    if _operator.running:
        _operator.thaw()


@pytest.fixture
def runs(
    control_plane: ControlPlane, driver: PodsDriver, operator: OperatorProcess, request: pytest.FixtureRequest
) -> Iterator[ClusterRuns]:
    """Runs in a new namespace."""
    runs = ClusterRuns(control_plane, driver, operator)
    yield runs
    if request.session.testsfailed:
        runs.explain()
    runs.close()
    assert not runs.history.overlaps
