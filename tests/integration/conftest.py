"""What integration tests share: a Kubernetes control plane with the CRD of SeeleRuns in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from seele_operator.validation.crd import crd
from tests.support.control_plane import ControlPlane


@contextmanager
def started(folder: Path) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager, with the definition of SeeleRun."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    with ControlPlane(folder) as plane:
        # As on an old server: what CEL refuses, the operator has to refuse. See test_crd_on_server.py for the rest.
        plane.install(crd(cel=False))
        yield plane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """For most tests, which keep to namespaces of their own."""
    with started(tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def quiet_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One that no operator uses, and that tests may stop and start."""
    with started(tmp_path_factory.mktemp("quiet-control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def helm_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One for the chart, whose objects have the names of those that other tests install without Helm."""
    with started(tmp_path_factory.mktemp("helm-control-plane")) as plane:
        yield plane
