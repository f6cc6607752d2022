"""The operator needs every right of its manifests, and no other."""

from __future__ import annotations

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

pytestmark = pytest.mark.integration

Right = tuple[str, str, str]
"""API group, resource with its subresource, verb."""
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
OTHER_GANGS = "scheduling.x-k8s.io"
"""Asked for in the same way as Volcano's, of which this cluster has the groups."""


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
    """The kind of Volcano's groups, and then no longer: other tests want it absent."""
    definition = pod_group_crd()
    control_plane.install(definition)
    yield
    name = definition["metadata"]["name"]
    control_plane.admin.delete("customresourcedefinitions", name)
    wait_for(lambda: control_plane.admin.get("customresourcedefinitions", name) is None, f"{name} is gone")


def test_both_manifests_grant_the_same() -> None:
    assert granted("rbac.yaml") == granted("rbac-namespaced.yaml")


@pytest.mark.usefixtures("gang_scheduler")
def test_every_right_is_used_and_none_is_missing(
    runs: ClusterRuns, driver: PodsDriver, control_plane: ControlPlane
) -> None:
    # A gang, a claim of its own, a restart, an orphan, objects to mend, and an end after which it is deleted.
    claim = {"size": "1Gi", "retention": "Delete"}
    spec: dict[str, Any] = {
        "scheduling": {"gang": "volcano"},
        "runPolicy": {"ttlSecondsAfterFinished": 2},
        "storage": {"run": {"hostPath": ABSENT, "persistentVolumeClaimTemplate": claim}},
    }
    runs.running(spec=spec)
    runs.api.patch("pods", "run-trainer-1", runs.namespace, {"metadata": {"ownerReferences": None}})
    wait_for(lambda: "ownerReferences" in runs.pod("trainer", 1)["metadata"], runs.story, SECONDS)
    # What happens again is counted up in its Event.
    for step in (1, 2):
        # Progress forgives what was before, so that nothing waits longer each time.
        driver.trainer(runs.pod("trainer")).at(step, lastCheckpointStep=step)
        runs.until("Running", step=step, failures={"application": 0, "disruption": 0})
        lost = runs.pod("rollout")
        driver.evict(lost)
        runs.wait_until_gone([lost])
        runs.wait_for_pods(seconds=90)
        runs.until_condition("RolloutReady", "True", "Ready")
    driver.trainer(runs.pod("trainer")).at(3, lastCheckpointStep=3)
    runs.until("Running", step=3)
    driver.finish(runs.pod("trainer"), 1)
    runs.restarted()
    for index in (1, 0):
        driver.finish(runs.pod("trainer", index), 0)
    wait_for(runs.gone, runs.story, SECONDS)

    # Old servers put a watch on record when it ends.
    assert runs.operator.terminate() == 0

    def unused() -> set[Right]:
        asked = {right for right, _ in requests(control_plane)}
        return {right for right in granted("rbac.yaml") - asked if right[0] != OTHER_GANGS}

    wait_for(lambda: not unused(), lambda: f"rights that nothing needs: {sorted(unused())}", SECONDS)
    refused = {
        right
        for right, event in requests(control_plane)
        if event.get("responseStatus", {}).get("code") == 403
        # A quota, or a namespace that is going away, says 403 as well.
        and "authorization.k8s.io/decision" in event.get("annotations", {})
        and event["annotations"]["authorization.k8s.io/decision"] == "forbid"
        and not control_plane.was_starting(datetime.fromisoformat(event["requestReceivedTimestamp"]))
    }
    assert refused == set()
