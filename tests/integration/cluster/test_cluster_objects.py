"""Support objects and Events: created, updated or not touched on a real API server."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from seele_operator.api.events import Refusal, RunEvent
from seele_operator.api.seelerun import SeeleRun
from seele_operator.kube import cluster as cluster_module
from seele_operator.kube.cluster import Cluster
from seele_operator.plan import objects as plan
from tests.integration.cluster.bodies import FOREIGN_UID, NOW, Body, child, config_of, refused, uid, without_owner
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import KubernetesApi
from tests.support.pod_groups import pod_group_crd
from tests.support.waiting import wait_for

# Support objects


async def test_a_missing_object_is_created(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    await cluster.ensure(config_of(run, a="1"), uid(run))
    stored = admin.get("configmaps", "r-config", run["metadata"]["namespace"]) or {}
    assert stored["data"] == {"a": "1"}
    assert [one["uid"] for one in stored["metadata"]["ownerReferences"]] == [uid(run)]


async def test_an_object_gets_our_fields_and_keeps_those_of_others(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(config_of(run, a="1", b="2"), uid(run))
    admin.patch("configmaps", "r-config", namespace, {"data": {"a": "mine now", "theirs": "stays"}})
    for _ in range(2):
        await cluster.ensure(config_of(run, a="1", c="3"), uid(run))
        stored = admin.get("configmaps", "r-config", namespace) or {}
        # b was ours and is no longer applied; a is ours, although another client changed it.
        assert stored["data"] == {"a": "1", "c": "3", "theirs": "stays"}
    managers = [
        (entry["manager"], entry["operation"])
        for entry in stored["metadata"]["managedFields"]
        if entry["manager"] == cluster_module.FIELD_MANAGER
    ]
    assert managers == [(cluster_module.FIELD_MANAGER, "Apply")]


async def test_an_unchanged_object_is_not_written_again(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
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
    another = {**run, "metadata": {**run["metadata"], "name": "another", "uid": FOREIGN_UID}}
    return config_of(another)


def of_an_earlier_run(run: Body) -> Body:
    return config_of({**run, "metadata": {**run["metadata"], "uid": FOREIGN_UID}})


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (unlabelled, "exists, without the label seele.dev/run=r"),
        (of_another_run, "exists, and belongs to SeeleRun another"),
        (of_an_earlier_run, "is left over from an earlier SeeleRun r"),
    ],
)
async def test_objects_of_others_are_not_touched(
    cluster: Cluster,
    control_plane: ControlPlane,
    admin: KubernetesApi,
    run: Body,
    theirs: Callable[[Body], Body],
    words: str,
) -> None:
    # Otherwise the object would be collected, because its owner does not exist.
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


async def test_a_terminating_object_is_recreated_later(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
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


async def test_a_claim_outlives_its_run_and_is_not_changed(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(claim_of(run, "1Gi"), uid(run))
    await cluster.ensure(claim_of(run, "2Gi"), FOREIGN_UID)
    stored = admin.get("persistentvolumeclaims", "r-run", namespace) or {}
    assert stored["spec"]["resources"]["requests"]["storage"] == "1Gi"
    admin.patch("persistentvolumeclaims", "r-run", namespace, {"metadata": {"labels": None}})
    assert (await refused(cluster.ensure(claim_of(run, "1Gi"), uid(run)))).reason == "NameTaken"


async def test_all_objects_of_a_run_can_be_created_and_applied(
    cluster: Cluster, control_plane: ControlPlane, admin: KubernetesApi, run: Body
) -> None:
    budget = cluster.features.pod_disruption_budget
    assert budget == ("policy/v1" if control_plane.version >= (1, 21) else "policy/v1beta1")
    seele_run = SeeleRun.model_validate(run)
    objects = plan.support_objects(seele_run, cluster.features)
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
        control_plane.install(pod_group_crd())
    group = {**child(run, "PodGroup", "r", spec={"minMember": 2}), "apiVersion": "scheduling.volcano.sh/v1beta1"}
    path = f"apis/scheduling.volcano.sh/v1beta1/namespaces/{namespace}/podgroups"
    try:
        await cluster.ensure(group, uid(run))
        await cluster.delete_object(group, FOREIGN_UID)
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


async def test_only_the_run_with_this_uid_is_deleted_with_its_objects(
    cluster: Cluster, admin: KubernetesApi, run: Body
) -> None:
    namespace = run["metadata"]["namespace"]
    await cluster.ensure(config_of(run), uid(run))
    await cluster.delete_run(namespace, "r", FOREIGN_UID)
    assert admin.get("seeleruns", "r", namespace) is not None
    for _ in range(2):
        await cluster.delete_run(namespace, "r", uid(run))
    assert admin.get("seeleruns", "r", namespace) is None
    wait_for(lambda: admin.get("configmaps", "r-config", namespace) is None, "the config map is collected")


# Events


async def test_a_repeated_event_is_counted(cluster: Cluster, kubeconfig: Path, admin: KubernetesApi, run: Body) -> None:
    namespace = run["metadata"]["namespace"]
    event = RunEvent("Warning", "Restarting", "trainer 0 failed: OOMKilled")
    await cluster.post_event(run, event, NOW)
    await cluster.post_event(run, event, NOW + timedelta(minutes=1))
    # Another operator, which does not know the count.
    async with await Cluster.connect(str(kubeconfig)) as second:
        await second.post_event(run, event, NOW + timedelta(minutes=2))
    await cluster.post_event(run, RunEvent("Normal", "Running", "step 1"), NOW)

    events = {stored["reason"]: stored for stored in admin.list("events", namespace)}
    assert sorted(events) == ["Restarting", "Running"]
    restarting = events["Restarting"]
    assert restarting["count"] == 3
    assert restarting["firstTimestamp"] == "2026-11-22T12:00:00Z"
    assert restarting["lastTimestamp"] == "2026-11-22T12:02:00Z"
    assert restarting["type"] == "Warning"
    assert restarting["message"] == event.message
    assert restarting["involvedObject"]["uid"] == uid(run)
    assert restarting["source"]["component"] == "seele-operator"


async def test_an_expired_event_is_created_again(cluster: Cluster, admin: KubernetesApi, run: Body) -> None:
    namespace, event = run["metadata"]["namespace"], RunEvent("Normal", "Running", "step 1")
    await cluster.post_event(run, event, NOW)
    await cluster.post_event(run, event, NOW)
    for stored in admin.list("events", namespace):
        admin.delete("events", stored["metadata"]["name"], namespace)
    await cluster.post_event(run, event, NOW)
    await cluster.post_event(run, event, NOW)
    assert [stored["count"] for stored in admin.list("events", namespace)] == [2]


async def test_an_event_never_fails(
    cluster: Cluster, admin: KubernetesApi, run: Body, caplog: pytest.LogCaptureFixture
) -> None:
    long = RunEvent("Warning", "Failed", "x" * 5000)
    await cluster.post_event(run, long, NOW)
    (stored,) = admin.list("events", run["metadata"]["namespace"])
    assert len(stored["message"]) == 1024
    nowhere = {**run, "metadata": {**run["metadata"], "namespace": "nowhere"}}
    await cluster.post_event(nowhere, long, NOW)
    assert "an event about r was not posted" in caplog.text
