"""The operator needs exactly the permissions of its manifests."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from tests.support.cluster_runs import SECONDS, ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.operator_process import NAMESPACE, SERVICE_ACCOUNT, manifests
from tests.support.pod_groups import pod_group_crd
from tests.support.pods_driver import PodsDriver
from tests.support.spec_data import ABSENT
from tests.support.waiting import wait_for

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
OTHER_GANGS = "scheduling.x-k8s.io"
"""Used in the same way as Volcano's groups, which this cluster serves."""


def granted(file: str) -> set[Right]:
    rules = [rule for body in manifests(file) for rule in body.get("rules", [])]
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def requests(plane: ControlPlane) -> Iterator[tuple[Right, dict[str, Any]]]:
    for event in plane.audit():
        if event["user"]["username"] != ACCOUNT or "objectRef" not in event:
            continue
        what = event["objectRef"]
        resource = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
        yield (what.get("apiGroup", ""), resource, event["verb"]), event


@pytest.fixture
def gang_scheduler(control_plane: ControlPlane) -> Iterator[None]:
    """Serve Volcano's PodGroups during a test; other tests need them absent."""
    definition = pod_group_crd()
    control_plane.install(definition)
    yield
    name = definition["metadata"]["name"]
    control_plane.admin.delete("customresourcedefinitions", name)
    wait_for(lambda: control_plane.admin.get("customresourcedefinitions", name) is None, f"{name} is gone")


def test_both_manifests_grant_the_same_permissions() -> None:
    assert granted("rbac.yaml") == granted("rbac-namespaced.yaml")


@pytest.mark.usefixtures("gang_scheduler")
def test_every_permission_is_used_and_none_is_missing(
    runs: ClusterRuns, driver: PodsDriver, control_plane: ControlPlane
) -> None:
    # A gang, an owned claim, a restart, an orphan, objects to repair, and a deletion after the end.
    claim = {"size": "1Gi", "retention": "Delete"}
    spec: dict[str, Any] = {
        "scheduling": {"gang": "volcano"},
        "runPolicy": {"ttlSecondsAfterFinished": 2},
        "storage": {"run": {"hostPath": ABSENT, "persistentVolumeClaimTemplate": claim}},
    }
    runs.running(spec=spec)
    runs.api.patch("pods", "run-trainer-1", runs.namespace, {"metadata": {"ownerReferences": None}})
    wait_for(lambda: "ownerReferences" in runs.pod("trainer", 1)["metadata"], runs.story, SECONDS)
    # A repeated failure increments the count of its Event.
    for step in (1, 2):
        # Progress resets the failures, so that the delays do not grow.
        driver.trainer(runs.pod("trainer")).at(step, lastCheckpointStep=step)
        runs.until("Running", step=step, failures={"application": 0, "disruption": 0})
        lost = runs.pod("rollout")
        driver.evict(lost)
        runs.wait_until_gone([lost])
        runs.wait_for_pods(seconds=90)
        runs.until_condition("RolloutReady", "True", "Ready")
    driver.trainer(runs.pod("trainer")).at(3, lastCheckpointStep=3)
    runs.until("Running", step=3)
    driver.finish(runs.pod("rollout"), 1)
    wait_for(lambda: runs.status()["failures"]["application"] == 1, runs.story, SECONDS)
    driver.finish(runs.pod("trainer"), 1)
    runs.restarted()
    runs.finish_trainers()
    wait_for(runs.gone, runs.story, SECONDS)

    # Old servers write a watch to the audit log when it ends.
    assert runs.operator.terminate() == 0

    def unused() -> set[Right]:
        asked = {right for right, _ in requests(control_plane)}
        return {right for right in granted("rbac.yaml") - asked if right[0] != OTHER_GANGS}

    wait_for(lambda: not unused(), lambda: f"unused permissions: {sorted(unused())}", SECONDS)
    refused = {
        right
        for right, event in requests(control_plane)
        if event.get("responseStatus", {}).get("code") == 403
        # An exceeded quota or a terminating namespace is a 403 too.
        and "authorization.k8s.io/decision" in event.get("annotations", {})
        and event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        and not control_plane.was_starting(datetime.fromisoformat(event["requestReceivedTimestamp"]))
    }
    assert refused == set()
