"""Chart and manifests make the same objects, which a real API server accepts."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane, kubernetes_binaries
from tests.support.helm_chart import CHART, NAMESPACE, NEW, OLD, RELEASE, Body, as_file, helm_done, objects, rendered
from tests.support.waiting import wait_for

MANIFESTS = REPOSITORY / "manifests"
OLDEST = "before-1.23"
DATA = REPOSITORY / "tests" / "unit" / "data" / "chart"

MORE: dict[str, dict[str, Any]] = {
    "no leader election": {"leaderElection": {"enabled": False}},
    "no replicas": {"replicas": 0},
    "recreated": {"updateStrategy": {"type": "Recreate"}},
    "an existing account": {"serviceAccount": {"create": False, "name": "theirs"}},
    "standbys in two namespaces": {"watchNamespaces": ["research", "teaching"], "replicas": 2},
    "a policy for all sources": {"networkPolicy": {"enabled": True}},
    "no resources and no user": {
        "resources": {"limits": None, "requests": None},
        "podSecurityContext": {"runAsUser": None},
    },
    "a load balancer": {"service": {"type": "LoadBalancer"}},
}
"""In addition to the values of the golden files."""

MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")


def kubectl(plane: ControlPlane, *arguments: str | Path, text: str | None = None) -> str:
    done = subprocess.run(
        [plane.binaries / "kubectl", f"--kubeconfig={plane.admin_kubeconfig}", *arguments],
        input=text,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def monitoring_kind(kind: str) -> Body:
    """A kind of the Prometheus operator, without a schema."""
    plural = f"{kind.lower()}s"
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.lower(), "listKind": f"{kind}List"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


@pytest.fixture(scope="module")
def plane(helm_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A cluster with the Prometheus operator's kinds and the namespaces in the values."""
    admin = helm_control_plane.admin
    made = [name for name in (NAMESPACE, "research", "teaching", "monitoring") if admin.get("namespaces", name) is None]
    for name in made:
        helm_control_plane.namespace(name)
    for kind in MONITORING:
        admin.apply(monitoring_kind(kind))
    for kind in MONITORING:
        served = f"apis/monitoring.coreos.com/v1/{kind.lower()}s"
        wait_for(lambda path=served: helm_control_plane._answers(path), f"{kind} is served")  # type: ignore[misc]
    yield helm_control_plane
    for kind in MONITORING:
        admin.delete("customresourcedefinitions", monitoring_kind(kind)["metadata"]["name"])
    for name in made:
        if name != NAMESPACE:
            admin.delete("namespaces", name)


def test_the_server_accepts_every_object_of_every_case(plane: ControlPlane, tmp_path: Path) -> None:
    files = [DATA / f"{case}.values.yaml" for case in ("defaults", "namespaces", "everything")]
    for number, values in enumerate(MORE.values()):
        (tmp_path / str(number)).mkdir()
        files.append(as_file(values, tmp_path / str(number)))
    version = f"v{plane.version[0]}.{plane.version[1]}.0"
    texts = {yaml.safe_dump(body) for values in files for body in rendered(values, kubernetes=version)}

    # All at once without duplicates, because kubectl is slow. Nothing is stored, so names may repeat.
    output = kubectl(plane, "apply", "--dry-run=server", "-f", "-", text="---\n".join(sorted(texts)))

    assert len(output.splitlines()) == len(texts) > 30


def test_a_release_with_everything_fits_into_its_secret(plane: ControlPlane) -> None:
    where = (f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={NAMESPACE}")
    values = ("--values", DATA / "everything.values.yaml")
    helm_done("install", "everything", CHART, *where, *values)
    try:
        secrets = plane.admin.list("secrets", NAMESPACE, "owner=helm,name=everything")
        # A Secret is limited to 1 MiB.
        assert 10_000 < sum(len(text) for secret in secrets for text in secret["data"].values()) < 700_000
    finally:
        helm_done("uninstall", "everything", *where)


# Without Helm


@pytest.fixture(scope="module")
def built() -> dict[str, list[Body]]:
    """The output of `kubectl kustomize` for each folder."""
    client = kubernetes_binaries() / "kubectl"

    def build(folder: Path) -> list[Body]:
        text = subprocess.run([client, "kustomize", folder], check=True, capture_output=True, text=True).stdout
        # PyYAML reads Go's 1e-06 as a string.
        return objects(re.sub(r"(?m): (\d+)(e-\d+)$", r": \1.0\2", text))

    return {NEW: build(MANIFESTS), OLD: build(MANIFESTS / OLDEST)}


def comparable(bodies: list[Body]) -> dict[str, Body]:
    """Objects by kind and name, without labels and annotations, and without the namespace, which Helm creates."""
    for body in bodies:
        body["metadata"].pop("annotations", None)
        of_roles = {key: value for key, value in body["metadata"].pop("labels", {}).items() if "aggregate-to" in key}
        body["metadata"] |= {"labels": of_roles} if of_roles else {}
    return {f"{body['kind']} {body['metadata']['name']}": body for body in bodies if body["kind"] != "Namespace"}


@pytest.mark.parametrize("kubernetes", [NEW, OLD])
def test_kustomize_and_the_chart_install_the_same(built: dict[str, list[Body]], kubernetes: str) -> None:
    ours, charts = comparable(built[kubernetes]), comparable(rendered(kubernetes=kubernetes))

    assert set(ours) == set(charts)
    for name, body in ours.items():
        assert body == charts[name], name


def test_kubectl_installs_everything(plane: ControlPlane, built: dict[str, list[Body]]) -> None:
    old = plane.version < (1, 25)
    output = kubectl(plane, "apply", "-k", MANIFESTS / OLDEST if old else MANIFESTS)
    try:
        assert len(output.splitlines()) == len(built[OLD if old else NEW])
        assert f"deployment.apps/{RELEASE} created" in output
        deployment = plane.admin.get("deployments", RELEASE, NAMESPACE)
        assert deployment is not None
        assert deployment["spec"]["template"]["spec"]["serviceAccountName"] == RELEASE
        assert plane.admin.get("serviceaccounts", RELEASE, NAMESPACE) is not None
    finally:
        # Other tests also use the definition and the namespace.
        ours = [body for body in built[OLD] if body["kind"] not in ("CustomResourceDefinition", "Namespace")]
        kubectl(plane, "delete", "--ignore-not-found", "-f", "-", text=yaml.safe_dump_all(ours))
