"""Orphans of a run are adopted; foreign objects are not touched."""

from typing import Any

import pytest

from tests.support.cluster_runs import SECONDS, ClusterRuns
from tests.support.operator_process import OperatorProcess
from tests.support.waiting import wait_for


def orphan(runs: ClusterRuns, kind: str, name: str) -> None:
    runs.api.patch(kind, name, runs.namespace, {"metadata": {"ownerReferences": None}})


def owners(runs: ClusterRuns, kind: str, name: str) -> list[str]:
    body = runs.api.get(kind, name, runs.namespace)
    return [] if body is None else [owner["uid"] for owner in body["metadata"].get("ownerReferences", [])]


@pytest.mark.parametrize("down", [False, True], ids=["while it works", "while it is down"])
def test_pods_that_lost_their_owner_are_adopted(runs: ClusterRuns, operator: OperatorProcess, down: bool) -> None:
    runs.running()
    uid = runs.get()["metadata"]["uid"]
    before = {pod["metadata"]["uid"] for pod in runs.pods()}
    if down:
        operator.kill()
    orphan(runs, "pods", "run-trainer-1")
    orphan(runs, "pods", "run-rollout-0")
    if down:
        operator.start()
    for name in ("run-trainer-1", "run-rollout-0"):
        wait_for(lambda name=name: owners(runs, "pods", name) == [uid], runs.story)  # type: ignore[misc]
    assert {pod["metadata"]["uid"] for pod in runs.pods()} == before
    assert runs.until("Running", attempt=1)["restarts"] == 0


def test_support_objects_are_repaired_by_the_next_attempt(runs: ClusterRuns) -> None:
    runs.running()
    uid = runs.get()["metadata"]["uid"]
    orphan(runs, "configmaps", "run-config")
    runs.api.delete("services", "run-trainer", runs.namespace)
    runs.driver.finish(runs.pod("trainer"), 1)
    runs.restarted()
    assert owners(runs, "configmaps", "run-config") == [uid]
    assert owners(runs, "services", "run-trainer") == [uid]


def foreign(kind: str, name: str) -> dict[str, Any]:
    body: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}
    if kind == "ConfigMap":
        body["data"] = {"mine": "untouched"}
    elif kind == "Service":
        body["spec"] = {"selector": {"app": "mine"}, "ports": [{"port": 80}]}
    else:
        body["spec"] = {
            "automountServiceAccountToken": False,
            "containers": [{"name": "mine", "image": "mine:1"}],
            "terminationGracePeriodSeconds": 0,
        }
    return body


@pytest.mark.parametrize(
    ("kind", "resource", "name"),
    [
        ("ConfigMap", "configmaps", "run-config"),
        ("Service", "services", "run-trainer"),
        ("Pod", "pods", "run-trainer-1"),
    ],
)
def test_a_foreign_object_is_not_touched_but_named(runs: ClusterRuns, kind: str, resource: str, name: str) -> None:
    runs.api.create(foreign(kind, name), runs.namespace)
    runs.make()
    condition = runs.until_condition("Scheduled", "False", "NameTaken")
    assert name in condition["message"]
    assert runs.phase() == "Pending"
    theirs = runs.api.get(resource, name, runs.namespace)
    assert theirs is not None
    assert "ownerReferences" not in theirs["metadata"]
    assert "seele.dev/run" not in theirs["metadata"].get("labels", {})
    runs.api.delete(resource, name, runs.namespace, grace=0)
    runs.until("Running", seconds=SECONDS + 10)
    # It was not counted as a failure.
    assert runs.status()["failures"] == {"application": 0, "disruption": 0}


def test_a_copy_of_a_pod_with_its_labels_is_not_touched(runs: ClusterRuns) -> None:
    runs.running()
    copy = runs.pod("trainer", 1)
    made = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "debugging", "labels": copy["metadata"]["labels"]},
        "spec": {"automountServiceAccountToken": False, "containers": [{"name": "shell", "image": "debian:12"}]},
    }
    runs.driver.behave(runs.namespace, except_for=frozenset({"debugging"}))
    runs.history.foreign.add("debugging")
    runs.api.create(made, runs.namespace)
    runs.driver.finish(runs.pod("trainer"), 1)
    runs.until("Running", attempt=2)
    left = runs.api.get("pods", "debugging", runs.namespace)
    assert left is not None
    assert "deletionTimestamp" not in left["metadata"]
    assert "ownerReferences" not in left["metadata"]
