"""A real API server accepts every object of every plan, and drops or changes none of its fields."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.yaml_files import read_run_file
from seele_operator.kube.cluster import path_of as kube_path_of
from seele_operator.kube.errors import Target
from seele_operator.plan.objects import ClusterFeatures, gang_objects, plan
from seele_operator.validation.load import check_cluster, check_run, parse_run
from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import KubernetesApi
from tests.support.pod_groups import pod_group_crd
from tests.support.spec_data import ABSENT, patched

PLANS = REPOSITORY / "tests" / "unit" / "data" / "plan"
QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"
POD_GROUPS = ("scheduling.volcano.sh/v1beta1", "scheduling.x-k8s.io/v1alpha1")


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> str:
    """A namespace with the objects that the plans refer to, in a cluster that serves PodGroups."""
    name = control_plane.namespace()
    api = control_plane.admin
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "training", "namespace": name}})
    priority = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "research"}}
    api.request("POST", "apis/scheduling.k8s.io/v1/priorityclasses", {**priority, "value": 1000})
    for api_version in POD_GROUPS:
        control_plane.install(pod_group_crd(api_version))
    return name


def features(api: KubernetesApi) -> ClusterFeatures:
    """The server's features, by discovery."""
    served = [version["groupVersion"] for version in api.request("GET", "apis/policy")["versions"]]
    return ClusterFeatures("policy/v1" if "policy/v1" in served else "policy/v1beta1")


def minor_version(api: KubernetesApi) -> int:
    """The 20 of Kubernetes 1.20."""
    return int(re.sub(r"\D", "", api.request("GET", "version")["minor"]))


def loaded(file: Path, name: str, namespace: str, **spec: Any) -> SeeleRun:
    """The run of a file under another name. It does not exist, so it must not own objects: they would be collected."""
    metadata = {"name": name, "namespace": namespace, "uid": ABSENT}
    body = patched(read_run_file(file), {"metadata": metadata, "spec": spec})
    run = parse_run(body)
    assert check_run(run) == []
    return run


def path_of(manifest: Mapping[str, Any], name: str | None = None) -> str:
    target = Target(manifest["apiVersion"], manifest["kind"], name)
    return kube_path_of(target, manifest["metadata"]["namespace"]).removeprefix("/")


def apply(api: KubernetesApi, manifest: Mapping[str, Any]) -> str:
    """Apply an object as the operator does; returns its resourceVersion."""
    path = path_of(manifest, manifest["metadata"]["name"])
    query = {"fieldManager": "seele-operator", "force": "true"}
    applied = api.request("PATCH", path, manifest, "application/apply-patch+yaml", **query)
    return str(applied["metadata"]["resourceVersion"])


def missing(wanted: Any, given: Any, place: str = "") -> Iterator[str]:
    """Places where `given` lacks something of `wanted`; it may have more, since servers fill in defaults."""
    if isinstance(wanted, Mapping):
        for key, value in wanted.items():
            if not isinstance(given, Mapping) or key not in given:
                # Empty and false values may be omitted.
                if value not in ({}, "", False):
                    yield f"{place}.{key}: is gone"
            else:
                yield from missing(value, given[key], f"{place}.{key}")
    elif isinstance(wanted, list) and isinstance(given, list):
        # Servers add tolerations after ours.
        if len(given) < len(wanted):
            yield f"{place}: {len(given)} of {len(wanted)}"
        for index, (value, found) in enumerate(zip(wanted, given, strict=False)):
            yield from missing(value, found, f"{place}[{index}]")
    elif wanted != given:
        yield f"{place}: {wanted!r} became {given!r}"


CASES = {
    "one-of-each": {},
    "two-by-two": {},
    "transformers": {},
    "gang": {},
    "coscheduling": {"scheduling": {"gang": "coscheduling", "queueName": None}},
    "kueue": {"scheduling": {"gang": "kueue"}},
    "quickstart": {},
}


@pytest.mark.parametrize("case", CASES)
def test_the_api_server_accepts_every_field(case: str, control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.admin
    known = PLANS / f"{case}.run.yaml"
    file = QUICKSTART if case == "quickstart" else known if known.exists() else PLANS / "gang.run.yaml"
    run = loaded(file, case, namespace, **CASES[case])
    if case != "one-of-each":
        assert check_cluster(run) == []
    # Probes have a grace period of their own from Kubernetes 1.25 on.
    unknown = "Probe.terminationGracePeriodSeconds: is gone" if minor_version(api) < 25 else None

    for manifest in plan(run, 1, features(api)):
        created = api.request("POST", path_of(manifest), manifest)
        where = f"{manifest['kind']} {manifest['metadata']['name']}"
        lost = missing(manifest, created, where)
        assert [field for field in lost if unknown is None or not field.endswith(unknown)] == []


def test_support_objects_can_be_applied_again_without_a_change(control_plane: ControlPlane, namespace: str) -> None:
    api = control_plane.admin
    run = loaded(PLANS / "gang.run.yaml", "again", namespace)
    support = [manifest for manifest in plan(run, 1, features(api)) if manifest["kind"] != "Pod"]

    # The server itself rewrites some objects once after their creation.
    _, second, third = ([apply(api, manifest) for manifest in support] for _ in range(3))
    assert second == third


def test_another_number_of_servers_updates_config_map_and_pod_group(
    control_plane: ControlPlane, namespace: str
) -> None:
    api = control_plane.admin
    group, config = "", []
    for replicas in (1, 3):
        run = loaded(PLANS / "gang.run.yaml", "grown", namespace, rollout={"replicas": replicas})
        for manifest in plan(run, 1, features(api)):
            if manifest["kind"] in {"ConfigMap", "PodGroup"}:
                apply(api, manifest)
        (pod_group,) = gang_objects(run)
        group = path_of(pod_group, pod_group["metadata"]["name"])
        config.append(api.get("configmaps", "grown-config", namespace))

    assert [len(config_map["data"]["rollout-urls"].splitlines()) for config_map in config if config_map] == [1, 3]
    assert api.request("GET", group)["spec"]["minMember"] == 4
