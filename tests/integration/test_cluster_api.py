"""What the operator asks of the API server, on a real one, with the rights of manifests/rbac.yaml and no more."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config

from control_plane import ControlPlane
from kubernetes_api import KubernetesApi
from operator_process import grant
from seele_operator import api_connection, plan
from seele_operator import cluster as cluster_module
from seele_operator.api_connection import ApiConnection
from seele_operator.api_errors import (
    ClusterUnavailable,
    Conflict,
    Gone,
    NamespaceTerminating,
    NoCluster,
    NotLeading,
    Refused,
)
from seele_operator.cluster import Cluster
from seele_operator.decision import Notice, Refusal
from seele_operator.spec import SeeleRun
from spec_data import small_run
from waiting import wait_for

pytestmark = pytest.mark.integration

ACCOUNT = "seele-operator-cluster-api"
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
SOMEBODY_ELSE = "00000000-0000-0000-0000-000000000000"

Body = dict[str, Any]


@pytest.fixture
def control_plane(quiet_control_plane: ControlPlane) -> ControlPlane:
    return quiet_control_plane


@pytest.fixture(scope="module")
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


def run_body(name: str, namespace: str) -> Body:
    return {**small_run(), "metadata": {"name": name, "namespace": namespace}}


def owner(run: Body) -> Body:
    metadata = run["metadata"]
    return {
        "apiVersion": run["apiVersion"],
        "kind": run["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child(run: Body, kind: str, name: str, **rest: Any) -> Body:
    """An object of the run."""
    namespace = run["metadata"]["namespace"]
    labels = {"seele.dev/run": run["metadata"]["name"]}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner(run)]}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}


def without_owner(body: Body) -> Body:
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}}


def pod_of(run: Body, name: str = "r-trainer-0", **spec: Any) -> Body:
    containers = [{"name": "trainer", "image": "none", **spec.pop("container", {})}]
    spec = {"containers": containers, "automountServiceAccountToken": False, **spec}
    return child(run, "Pod", name, spec=spec)


def config_of(run: Body, **data: str) -> Body:
    return child(run, "ConfigMap", "r-config", data=data)


def uid(body: Body) -> str:
    return str(body["metadata"]["uid"])


async def refused(asking: Any) -> Refusal:
    with pytest.raises(Refused) as error:
        await asking
    return error.value.refusal


# Reading


async def test_what_is_not_there_is_none(cluster: Cluster, namespace: str) -> None:
    assert await cluster.read_run(namespace, "r") is None
    assert await cluster.read_pod(namespace, "r") is None


async def test_a_run_is_read_without_the_owners_of_its_fields(cluster: Cluster, run: Body) -> None:
    read = await cluster.read_run(run["metadata"]["namespace"], "r")
    assert read is not None
    assert uid(read) == uid(run)
    assert "managedFields" in run["metadata"]
    assert "managedFields" not in read["metadata"]


async def test_lists_come_in_pages(
    cluster: Cluster, admin: KubernetesApi, run: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    namespace = run["metadata"]["namespace"]
    monkeypatch.setattr(cluster_module, "PAGE", 3)
    names = [f"r-rollout-{number}" for number in range(7)]
    for name in names:
        admin.create(pod_of(run, name))
    stranger = pod_of(run, "stranger")
    del stranger["metadata"]["labels"]
    admin.create(stranger)

    pods: list[Body] = []
    version = await cluster.each_pod(namespace, pods.append)

    assert sorted(pod["metadata"]["name"] for pod in pods) == names
    assert all(pod["kind"] == "Pod" and "managedFields" not in pod["metadata"] for pod in pods)
    assert int(version) >= max(int(pod["metadata"]["resourceVersion"]) for pod in pods)
    everywhere: list[Body] = []
    await cluster.each_pod(None, everywhere.append)
    assert {pod["metadata"]["namespace"] for pod in everywhere} >= {namespace}


async def test_runs_of_one_namespace_and_of_all(
    cluster: Cluster, admin: KubernetesApi, control_plane: ControlPlane, run: Body
) -> None:
    elsewhere = control_plane.namespace()
    other = admin.create(run_body("r", elsewhere))
    some: list[Body] = []
    await cluster.each_run(elsewhere, some.append)
    assert [uid(one) for one in some] == [uid(other)]
    every: list[Body] = []
    await cluster.each_run(None, every.append)
    assert {uid(one) for one in every} >= {uid(run), uid(other)}


# Status


async def test_a_status_is_written_on_what_was_read(cluster: Cluster, run: Body) -> None:
    namespace, version = run["metadata"]["namespace"], run["metadata"]["resourceVersion"]
    written = await cluster.patch_status(namespace, "r", version, {"phase": "Pending", "message": "waits"})
    assert written["status"] == {"phase": "Pending", "message": "waits"}
    again = await cluster.patch_status(namespace, "r", written["metadata"]["resourceVersion"], {"message": None})
    assert again["status"] == {"phase": "Pending"}
    with pytest.raises(Conflict):
        await cluster.patch_status(namespace, "r", version, {"phase": "Failed"})


async def test_a_status_of_a_deleted_run_is_gone(cluster: Cluster, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.delete_run(namespace, "r", uid(run))
    with pytest.raises(Gone):
        await cluster.patch_status(namespace, "r", run["metadata"]["resourceVersion"], {"phase": "Failed"})


async def test_a_status_that_the_definition_does_not_allow_is_refused(cluster: Cluster, run: Body) -> None:
    metadata = run["metadata"]
    patch = cluster.patch_status(metadata["namespace"], "r", metadata["resourceVersion"], {"phase": "Dancing"})
    assert (await refused(patch)).reason == "Invalid"


# Pods


async def test_a_pod_is_created_once_and_never_changed(cluster: Cluster, run: Body) -> None:
    created = await cluster.create_pod(pod_of(run))
    assert created is not None
    changed = pod_of(run)
    changed["metadata"]["labels"]["extra"] = "yes"
    assert await cluster.create_pod(changed) is None
    read = await cluster.read_pod(run["metadata"]["namespace"], "r-trainer-0")
    assert read is not None
    assert uid(read) == uid(created)
    assert "extra" not in read["metadata"]["labels"]


async def test_a_pod_beyond_the_quota(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}}
    admin.create(quota, namespace)
    wait_for(lambda: (admin.get("resourcequotas", "few", namespace) or {}).get("status"), "the quota is counted")
    assert await cluster.create_pod(pod_of(run)) is not None
    refusal = await refused(cluster.create_pod(pod_of(run, "r-trainer-1")))
    assert refusal.reason == "QuotaExceeded"
    assert refusal.message.startswith('Pod r-trainer-1: pods "r-trainer-1" is forbidden: exceeded quota: few')


async def test_a_pod_that_a_limit_range_forbids(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    limits = {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}
    admin.create(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "small"}, "spec": limits},
        run["metadata"]["namespace"],
    )
    wait_for(lambda: admin.list("limitranges", run["metadata"]["namespace"]), "the limit is there")
    pod = pod_of(run, container={"resources": {"limits": {"cpu": "2"}}})

    async def until_refused() -> Refusal:
        # Admission learns of a new limit a moment later.
        while True:
            try:
                created = await cluster.create_pod(pod)
            except Refused as error:
                return error.refusal
            assert created is not None
            await cluster.delete_pod(run["metadata"]["namespace"], "r-trainer-0", uid(created), grace=0)

    refusal = await asyncio.wait_for(until_refused(), 20)
    assert refusal == Refusal(
        "Forbidden",
        'Pod r-trainer-0: pods "r-trainer-0" is forbidden: maximum cpu usage per Container is 1, but limit is 2',
    )


async def test_a_pod_that_is_none(cluster: Cluster, run: Body) -> None:
    assert (await refused(cluster.create_pod(pod_of(run, container={"image": ""})))).reason == "Invalid"


async def test_a_pod_in_a_namespace_that_goes_away(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    # A finalizer keeps something in the namespace, so that it stays while it is terminating.
    admin.create({**config_of(run), "metadata": {"name": "stays", "finalizers": ["example.com/stays"]}}, namespace)
    admin.delete("namespaces", namespace)
    try:
        with pytest.raises(NamespaceTerminating):
            await cluster.create_pod(pod_of(run))
    finally:
        admin.patch("configmaps", "stays", namespace, {"metadata": {"finalizers": None}})
    wait_for(lambda: admin.get("namespaces", namespace) is None, "the namespace is gone")
    with pytest.raises(NamespaceTerminating):
        await cluster.create_pod(pod_of(run))


async def test_only_the_very_pod_is_deleted(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    created = await cluster.create_pod(pod_of(run))
    assert created is not None
    await cluster.delete_pod(namespace, "r-trainer-0", SOMEBODY_ELSE)
    assert admin.get("pods", "r-trainer-0", namespace) is not None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created))
    assert await cluster.read_pod(namespace, "r-trainer-0") is None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created))


async def test_a_grace_period_can_be_given(cluster: Cluster, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    # On a node, even one that nobody runs, a pod waits for its kubelet.
    created = await cluster.create_pod(pod_of(run, nodeName="nowhere", terminationGracePeriodSeconds=600))
    assert created is not None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created), grace=77)
    read = await cluster.read_pod(namespace, "r-trainer-0")
    assert read is None or read["metadata"]["deletionGracePeriodSeconds"] == 77


async def test_an_orphan_is_adopted_beside_its_other_owners(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    friend = admin.create(without_owner(config_of(run)))
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "r-config", "uid": uid(friend)}
    orphan = pod_of(run)
    orphan["metadata"]["ownerReferences"] = [other]
    orphan = admin.create(orphan)
    admin.create(without_owner(pod_of(run, "second")))

    await cluster.adopt_pod(namespace, "r-trainer-0", uid(orphan), owner(run))

    owners = (admin.get("pods", "r-trainer-0", namespace) or {})["metadata"]["ownerReferences"]
    assert {one["uid"] for one in owners} == {uid(run), uid(friend)}
    assert [one["uid"] for one in owners if one.get("controller")] == [uid(run)]
    with pytest.raises(Conflict):
        await cluster.adopt_pod(namespace, "second", SOMEBODY_ELSE, owner(run))
    with pytest.raises(Conflict):
        await cluster.adopt_pod(namespace, "r-trainer-0", uid(orphan), {**owner(run), "uid": SOMEBODY_ELSE})
    with pytest.raises(Gone):
        await cluster.adopt_pod(namespace, "third", SOMEBODY_ELSE, owner(run))


# Objects beside the pods


async def test_a_missing_object_is_made(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    await cluster.ensure(config_of(run, a="1"), uid(run))
    stored = admin.get("configmaps", "r-config", run["metadata"]["namespace"]) or {}
    assert stored["data"] == {"a": "1"}
    assert [one["uid"] for one in stored["metadata"]["ownerReferences"]] == [uid(run)]


async def test_an_object_becomes_what_the_manifest_says_and_keeps_what_others_set(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(config_of(run, a="1", b="2"), uid(run))
    admin.patch("configmaps", "r-config", namespace, {"data": {"a": "mine now", "theirs": "stays"}})
    for _ in range(2):
        await cluster.ensure(config_of(run, a="1", c="3"), uid(run))
        stored = admin.get("configmaps", "r-config", namespace) or {}
        # b was ours and is left out now; a is ours although somebody changed it.
        assert stored["data"] == {"a": "1", "c": "3", "theirs": "stays"}
    managers = [
        (entry["manager"], entry["operation"])
        for entry in stored["metadata"]["managedFields"]
        if entry["manager"] == cluster_module.FIELD_MANAGER
    ]
    assert managers == [(cluster_module.FIELD_MANAGER, "Apply")]


async def test_what_is_as_it_should_be_is_not_written_again(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    versions = []
    for _ in range(3):
        await cluster.ensure(config_of(run, a="1"), uid(run))
        versions.append((admin.get("configmaps", "r-config", namespace) or {})["metadata"]["resourceVersion"])
    assert versions[1] == versions[2]


async def test_an_orphan_of_the_run_becomes_its_own(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    admin.create(without_owner(config_of(run, a="old")))
    await cluster.ensure(config_of(run, a="1"), uid(run))
    stored = admin.get("configmaps", "r-config", run["metadata"]["namespace"]) or {}
    assert stored["data"] == {"a": "1"}
    assert [one["uid"] for one in stored["metadata"]["ownerReferences"]] == [uid(run)]


def unlabelled(run: Body) -> Body:
    body = without_owner(config_of(run))
    return {**body, "metadata": {**body["metadata"], "labels": {}}}


def of_another_run(run: Body) -> Body:
    another = {**run, "metadata": {**run["metadata"], "name": "another", "uid": SOMEBODY_ELSE}}
    return config_of(another)


def of_an_earlier_run(run: Body) -> Body:
    return config_of({**run, "metadata": {**run["metadata"], "uid": SOMEBODY_ELSE}})


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (unlabelled, "exists, without the label seele.dev/run=r"),
        (of_another_run, "exists, and belongs to SeeleRun another"),
        (of_an_earlier_run, "is left of an earlier SeeleRun r"),
    ],
)
async def test_what_belongs_to_others_is_left_alone(
    cluster: Cluster,
    control_plane: ControlPlane,
    admin: KubernetesApi,
    run: Body,
    theirs: Callable[[Body], Body],
    words: str,
) -> None:
    # Nothing is to collect the object of an owner that is not there.
    control_plane.stop_controller_manager()
    try:
        before = admin.create({**theirs(run), "data": {"a": "theirs"}})
        refusal = await refused(cluster.ensure(config_of(run, a="ours"), uid(run)))
        await cluster.delete_object(config_of(run), uid(run))
        assert refusal.reason == "NameTaken"
        assert refusal.message.startswith(f"ConfigMap r-config: {words}")
        after = admin.get("configmaps", "r-config", run["metadata"]["namespace"]) or {}
        assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    finally:
        control_plane.start_controller_manager()


async def test_an_object_on_its_way_out_is_made_anew_later(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    held = config_of(run)
    held["metadata"]["finalizers"] = ["example.com/held"]
    admin.create(held)
    admin.delete("configmaps", "r-config", namespace)
    assert "is being deleted" in (await refused(cluster.ensure(config_of(run), uid(run)))).message
    admin.patch("configmaps", "r-config", namespace, {"metadata": {"finalizers": None}})
    await cluster.ensure(config_of(run), uid(run))


def claim_of(run: Body, size: str) -> Body:
    spec = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}}
    return without_owner(child(run, "PersistentVolumeClaim", "r-run", spec=spec))


async def test_a_claim_outlives_its_run_and_is_left_as_it_is(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(claim_of(run, "1Gi"), uid(run))
    await cluster.ensure(claim_of(run, "2Gi"), SOMEBODY_ELSE)
    stored = admin.get("persistentvolumeclaims", "r-run", namespace) or {}
    assert stored["spec"]["resources"]["requests"]["storage"] == "1Gi"
    admin.patch("persistentvolumeclaims", "r-run", namespace, {"metadata": {"labels": None}})
    assert (await refused(cluster.ensure(claim_of(run, "1Gi"), uid(run)))).reason == "NameTaken"


async def test_all_that_a_run_is_made_of_can_be_made_and_applied(
    cluster: Cluster, control_plane: ControlPlane, admin: KubernetesApi, run: Body
) -> None:
    budget = cluster.features.pod_disruption_budget
    assert budget == ("policy/v1" if control_plane.version >= (1, 21) else "policy/v1beta1")
    seele_run = SeeleRun.model_validate(run)
    objects = plan.support_objects(seele_run, 1, cluster.features)
    kinds = {body["kind"] for body in objects}
    assert {"ConfigMap", "Service", "NetworkPolicy", "PodDisruptionBudget"} <= kinds
    for _ in range(2):
        for body in objects:
            await cluster.ensure(body, uid(run))
    for pod in plan.pods(seele_run, 1).values():
        assert await cluster.create_pod(pod) is not None


async def test_a_gang_scheduler_that_is_not_installed(cluster: Cluster, run: Body) -> None:
    group = {**child(run, "PodGroup", "r", spec={"minMember": 2}), "apiVersion": "scheduling.volcano.sh/v1beta1"}
    assert await refused(cluster.ensure(group, uid(run))) == Refusal(
        "GangUnavailable",
        "PodGroup r: this cluster does not serve the kind PodGroup of scheduling.volcano.sh/v1beta1; "
        "install Volcano, or set spec.scheduling.gang to none",
    )
    await cluster.delete_object(group, uid(run))


async def test_only_the_runs_own_object_is_deleted(
    cluster: Cluster, admin: KubernetesApi, control_plane: ControlPlane, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    if admin.get("customresourcedefinitions", "podgroups.scheduling.volcano.sh") is None:
        control_plane.install(volcano())
    group = {**child(run, "PodGroup", "r", spec={"minMember": 2}), "apiVersion": "scheduling.volcano.sh/v1beta1"}
    path = f"apis/scheduling.volcano.sh/v1beta1/namespaces/{namespace}/podgroups"
    try:
        await cluster.ensure(group, uid(run))
        await cluster.delete_object(group, SOMEBODY_ELSE)
        assert len(admin.request("GET", path)["items"]) == 1
        for _ in range(2):
            await cluster.delete_object(group, uid(run))
        assert admin.request("GET", path)["items"] == []
    finally:
        admin.delete("customresourcedefinitions", "podgroups.scheduling.volcano.sh")
        wait_for(
            lambda: admin.get("customresourcedefinitions", "podgroups.scheduling.volcano.sh") is None,
            "the definition is gone",
        )


def volcano() -> Body:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {"name": "v1beta1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "podgroups.scheduling.volcano.sh"},
        "spec": {
            "group": "scheduling.volcano.sh",
            "names": {"kind": "PodGroup", "listKind": "PodGroupList", "plural": "podgroups", "singular": "podgroup"},
            "scope": "Namespaced",
            "versions": [version],
        },
    }


async def test_only_the_very_run_is_deleted_and_its_objects_after_it(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(config_of(run), uid(run))
    await cluster.delete_run(namespace, "r", SOMEBODY_ELSE)
    assert admin.get("seeleruns", "r", namespace) is not None
    for _ in range(2):
        await cluster.delete_run(namespace, "r", uid(run))
    assert admin.get("seeleruns", "r", namespace) is None
    wait_for(lambda: admin.get("configmaps", "r-config", namespace) is None, "the config map is collected")


# Events


async def test_a_repeated_notice_is_one_event_that_counts(
    cluster: Cluster, kubeconfig: Path, admin: KubernetesApi, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    notice = Notice("Warning", "Restarting", "trainer 0 failed: OOMKilled")
    await cluster.post_event(run, notice, NOW)
    await cluster.post_event(run, notice, NOW + timedelta(minutes=1))
    # Another operator, which remembers nothing.
    async with await Cluster.connect(str(kubeconfig)) as second:
        await second.post_event(run, notice, NOW + timedelta(minutes=2))
    await cluster.post_event(run, Notice("Normal", "Running", "step 1"), NOW)

    events = {event["reason"]: event for event in admin.list("events", namespace)}
    assert sorted(events) == ["Restarting", "Running"]
    restarting = events["Restarting"]
    assert restarting["count"] == 3
    assert restarting["firstTimestamp"] == "2026-11-22T12:00:00Z"
    assert restarting["lastTimestamp"] == "2026-11-22T12:02:00Z"
    assert restarting["type"] == "Warning"
    assert restarting["message"] == notice.message
    assert restarting["involvedObject"]["uid"] == uid(run)
    assert restarting["source"]["component"] == "seele-operator"


async def test_an_event_that_the_api_server_forgot_begins_anew(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
    namespace, notice = run["metadata"]["namespace"], Notice("Normal", "Running", "step 1")
    await cluster.post_event(run, notice, NOW)
    await cluster.post_event(run, notice, NOW)
    for event in admin.list("events", namespace):
        admin.delete("events", event["metadata"]["name"], namespace)
    await cluster.post_event(run, notice, NOW)
    await cluster.post_event(run, notice, NOW)
    assert [event["count"] for event in admin.list("events", namespace)] == [2]


async def test_an_event_never_fails(
    cluster: Cluster, admin: KubernetesApi, run: Body, caplog: pytest.LogCaptureFixture
) -> None:
    long = Notice("Warning", "Failed", "x" * 5000)
    await cluster.post_event(run, long, NOW)
    (event,) = admin.list("events", run["metadata"]["namespace"])
    assert len(event["message"]) == 1024
    nowhere = {**run, "metadata": {**run["metadata"], "namespace": "nowhere"}}
    await cluster.post_event(nowhere, long, NOW)
    assert "an event about r was not posted" in caplog.text


# Who may write, and who is there


async def test_without_the_lease_nothing_is_written(kubeconfig: Path, admin: KubernetesApi, run: Body) -> None:
    metadata = run["metadata"]
    namespace, pod = metadata["namespace"], pod_of(run)
    existing = admin.create(pod_of(run, "r-rollout-0"))
    admin.create(config_of(run, a="1"))
    leading = False
    async with await Cluster.connect(str(kubeconfig), allowed=lambda: leading) as cluster:
        writes = [
            cluster.patch_status(namespace, "r", metadata["resourceVersion"], {"phase": "Failed"}),
            cluster.create_pod(pod),
            cluster.delete_pod(namespace, "r-rollout-0", uid(existing)),
            cluster.adopt_pod(namespace, "r-rollout-0", uid(existing), owner(run)),
            cluster.ensure(config_of(run, a="2"), uid(run)),
            cluster.delete_object(config_of(run), uid(run)),
            cluster.delete_run(namespace, "r", uid(run)),
        ]
        for write in writes:
            with pytest.raises(NotLeading):
                await write
        await cluster.post_event(run, Notice("Normal", "Running", "step 1"), NOW)
        assert await cluster.read_run(namespace, "r") is not None
        assert [body["metadata"]["name"] for body in admin.list("pods", namespace)] == ["r-rollout-0"]
        assert (admin.get("configmaps", "r-config", namespace) or {})["data"] == {"a": "1"}
        assert admin.list("events", namespace) == []
        leading = True
        assert await cluster.create_pod(pod) is not None


async def test_a_missing_permission_is_told_in_the_api_servers_words(
    control_plane: ControlPlane, namespace: str
) -> None:
    nobody = control_plane.kubeconfig("nobody", control_plane.service_account_token("default", namespace))
    async with await Cluster.connect(str(nobody)) as cluster:
        refusal = await refused(cluster.each_pod(namespace, lambda pod: None))
    assert refusal.reason == "Forbidden"
    assert f'cannot list resource "pods" in API group "" in the namespace "{namespace}"' in refusal.message


async def test_an_api_server_that_is_away_is_unavailable_and_then_back(
    control_plane: ControlPlane, kubeconfig: Path, cluster: Cluster, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    control_plane.stop_api_server()
    try:
        with pytest.raises(ClusterUnavailable):
            await cluster.read_run(namespace, "r")
        with pytest.raises(ClusterUnavailable):
            await Cluster.connect(str(kubeconfig))
        await cluster.post_event(run, Notice("Normal", "Running", "step 1"), NOW)
    finally:
        control_plane.start_api_server()
    assert await cluster.create_pod(pod_of(run)) is not None


async def test_a_server_that_accepts_and_never_answers(tmp_path: Path) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = await ApiConnection.open(str(kubeconfig_of(tmp_path, f"http://127.0.0.1:{port}", {"token": "t"})))
    began = time.monotonic()
    with pytest.raises(ClusterUnavailable, match=r"GET /version: no answer within 0\.3 s"):
        await connection.request("GET", "/version", seconds=0.3)
    assert time.monotonic() - began < 2
    await connection.close()
    server.close()


def kubeconfig_of(folder: Path, url: str, user: Body, certificate_authority: Path | None = None) -> Path:
    cluster: Body = {"server": url}
    if certificate_authority is not None:
        content = base64.b64encode(certificate_authority.read_bytes()).decode()
        cluster["certificate-authority-data"] = content
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": cluster}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "c",
            }
        )
    )
    return path


async def test_a_token_that_is_rotated_is_read_again(
    control_plane: ControlPlane, kubeconfig: Path, tmp_path: Path, run: Body
) -> None:
    token = tmp_path / "token"
    token.write_text("expired\n")
    config = kubeconfig_of(tmp_path, control_plane.url, {"tokenFile": str(token)}, control_plane.certificate_authority)
    cluster = Cluster(connection := await ApiConnection.open(str(config)), cluster_module.ClusterFeatures())
    with pytest.raises(ClusterUnavailable, match="Unauthorized"):
        await cluster.read_run(run["metadata"]["namespace"], "r")
    token.write_text(control_plane.service_account_token(ACCOUNT, "seele-system") + "\n")
    connection._reloaded = -1e9  # a while later
    assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None
    await cluster.close()


async def test_a_plugin_gives_the_credentials_and_new_ones_when_they_are_refused(
    control_plane: ControlPlane, kubeconfig: Path, tmp_path: Path, run: Body
) -> None:
    token = tmp_path / "token"
    token.write_text("expired")
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\n"
        'echo "{\\"apiVersion\\": \\"client.authentication.k8s.io/v1beta1\\", \\"kind\\": \\"ExecCredential\\", '
        f'\\"status\\": {{\\"token\\": \\"$(cat {token})\\"}}}}"\n'
        f"printf {control_plane.service_account_token(ACCOUNT, 'seele-system')} > {token}\n"
    )
    plugin.chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(plugin)}}
    config = kubeconfig_of(tmp_path, control_plane.url, user, control_plane.certificate_authority)
    # Its first token is refused, and its second one is not.
    async with await Cluster.connect(str(config)) as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_the_cluster_of_kubeconfig_in_the_environment(
    kubeconfig: Path, run: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    async with await Cluster.connect() as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_the_cluster_that_a_pod_runs_in(
    control_plane: ControlPlane, kubeconfig: Path, run: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(control_plane.service_account_token(ACCOUNT, "seele-system"))
    host, port = control_plane.url.removeprefix("https://").split(":")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", port)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(api_connection, "SERVICE_ACCOUNT", tmp_path)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(control_plane.certificate_authority))
    async with await Cluster.connect() as cluster:
        assert await cluster.read_run(run["metadata"]["namespace"], "r") is not None


async def test_no_cluster_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kubeconfig: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for where in ({}, {"kubeconfig": str(tmp_path / "none")}, {"kubeconfig": str(kubeconfig), "context": "none"}):
        with pytest.raises(NoCluster):
            await Cluster.connect(**where)


async def test_requests_are_told_with_their_codes_and_seconds(kubeconfig: Path, run: Body) -> None:
    seen: list[tuple[str, int, float]] = []
    namespace = run["metadata"]["namespace"]
    async with await Cluster.connect(str(kubeconfig), on_request=lambda *request: seen.append(request)) as cluster:
        await cluster.read_pod(namespace, "none")
        assert [(method, code) for method, code, _ in seen] == [("GET", 200), ("GET", 404)]
        assert all(0 < seconds < 10 for _, _, seconds in seen)
        await asyncio.gather(*(cluster.read_run(namespace, "r") for _ in range(500)))
        assert [(method, code) for method, code, _ in seen[2:]] == [("GET", 200)] * 500
