"""The operator's client on a real API server, with exactly the permissions of manifests/rbac.yaml."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from seele_operator.kube.cluster import Cluster
from tests.integration.cluster.bodies import ACCOUNT, Body, run_body
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import KubernetesApi
from tests.support.operator_process import grant


@pytest.fixture
def control_plane(quiet_control_plane: ControlPlane) -> ControlPlane:
    return quiet_control_plane


@pytest.fixture(scope="session")
def kubeconfig(quiet_control_plane: ControlPlane) -> Path:
    return grant(quiet_control_plane, "rbac.yaml", account=ACCOUNT)


@pytest.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    async with await Cluster.connect(str(kubeconfig)) as connected:
        yield connected


@pytest.fixture
def admin(control_plane: ControlPlane) -> KubernetesApi:
    return control_plane.admin


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    return control_plane.namespace()


@pytest.fixture
def run(admin: KubernetesApi, namespace: str) -> Body:
    return admin.create(run_body("r", namespace))
