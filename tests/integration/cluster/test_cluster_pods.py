"""Runs, their status and their pods: read, created and deleted on a real API server."""

import asyncio

import pytest

from seele_operator.api.events import Refusal
from seele_operator.kube import cluster as cluster_module
from seele_operator.kube.cluster import Cluster
from seele_operator.kube.errors import Conflict, Gone, NamespaceTerminating, Refused
from tests.integration.cluster.bodies import (
    FOREIGN_UID,
    Body,
    config_of,
    owner,
    pod_of,
    refused,
    run_body,
    uid,
    without_owner,
)
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import KubernetesApi
from tests.support.waiting import wait_for

# Reading


async def test_missing_objects_are_none(cluster: Cluster, namespace: str) -> None:
    assert await cluster.read_run(namespace, "r") is None
    assert await cluster.read_pod(namespace, "r") is None


async def test_a_run_is_read_without_its_managed_fields(cluster: Cluster, run: Body) -> None:
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


async def test_a_status_is_written_only_to_the_version_that_was_read(cluster: Cluster, run: Body) -> None:
    namespace, version = run["metadata"]["namespace"], run["metadata"]["resourceVersion"]
    written = await cluster.patch_status(namespace, "r", version, {"phase": "Pending", "message": "waits"})
    assert written["status"] == {"phase": "Pending", "message": "waits"}
    again = await cluster.patch_status(namespace, "r", written["metadata"]["resourceVersion"], {"message": None})
    assert again["status"] == {"phase": "Pending"}
    with pytest.raises(Conflict):
        await cluster.patch_status(namespace, "r", version, {"phase": "Failed"})


async def test_the_status_of_a_deleted_run_is_gone(cluster: Cluster, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.delete_run(namespace, "r", uid(run))
    with pytest.raises(Gone):
        await cluster.patch_status(namespace, "r", run["metadata"]["resourceVersion"], {"phase": "Failed"})


async def test_a_status_that_the_schema_does_not_allow_is_refused(cluster: Cluster, run: Body) -> None:
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
        # The admission plugin sees a new limit a moment later.
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


async def test_an_invalid_pod(cluster: Cluster, run: Body) -> None:
    assert (await refused(cluster.create_pod(pod_of(run, container={"image": ""})))).reason == "Invalid"


async def test_a_pod_in_a_terminating_namespace(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    # A finalizer keeps the namespace in the state terminating.
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


async def test_only_the_pod_with_this_uid_is_deleted(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    created = await cluster.create_pod(pod_of(run))
    assert created is not None
    await cluster.delete_pod(namespace, "r-trainer-0", FOREIGN_UID)
    assert admin.get("pods", "r-trainer-0", namespace) is not None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created))
    assert await cluster.read_pod(namespace, "r-trainer-0") is None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created))


async def test_a_grace_period_can_be_set(cluster: Cluster, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    # On a node, even a nonexistent one, a pod waits for the kubelet.
    created = await cluster.create_pod(pod_of(run, nodeName="nowhere", terminationGracePeriodSeconds=600))
    assert created is not None
    await cluster.delete_pod(namespace, "r-trainer-0", uid(created), grace=77)
    read = await cluster.read_pod(namespace, "r-trainer-0")
    assert read is None or read["metadata"]["deletionGracePeriodSeconds"] == 77


async def test_an_orphan_is_adopted_and_keeps_its_other_owners(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
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
        await cluster.adopt_pod(namespace, "second", FOREIGN_UID, owner(run))
    with pytest.raises(Conflict):
        await cluster.adopt_pod(namespace, "r-trainer-0", uid(orphan), {**owner(run), "uid": FOREIGN_UID})
    with pytest.raises(Gone):
        await cluster.adopt_pod(namespace, "third", FOREIGN_UID, owner(run))
