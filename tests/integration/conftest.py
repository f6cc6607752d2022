"""What integration tests share: a Kubernetes control plane with the CRD of SeeleRuns in it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from seele_operator.validation.crd import crd
from tests.support.control_plane import ControlPlane


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager; tests keep to namespaces of their own."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as plane:
        # As on an old server: what CEL refuses, the operator has to refuse. See test_crd_on_server.py for the rest.
        plane.install(crd(cel=False))
        yield plane


@pytest.fixture(scope="session")
def quiet_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Another one that no operator ever looks at, and that tests may stop and start."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    with ControlPlane(tmp_path_factory.mktemp("quiet-control-plane")) as plane:
        plane.install(crd(cel=False))
        yield plane


@pytest.fixture(scope="session")
def helm_control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """Another one that is there for the chart: what others install without Helm has the names of its objects."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    with ControlPlane(tmp_path_factory.mktemp("helm-control-plane")) as plane:
        plane.install(crd(cel=False))
        yield plane
