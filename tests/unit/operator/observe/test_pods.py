"""What the operator observes of raw pods: their owners, why they wait, and who deletes them."""

from datetime import UTC, datetime

import pytest

from seele_operator.observe.failures import PodFailure
from seele_operator.observe.pods import ObservedPod, Waiting, deletion_failure, observe_pod
from tests.support.raw_pods import (
    ASKED,
    RUNNING,
    UID,
    Body,
    container,
    ended,
    failed,
    lost,
    observed,
    pod_body,
    state,
    unscheduled,
    waiting,
)


def test_a_pod_that_runs() -> None:
    body = pod_body(RUNNING)
    body["spec"]["nodeName"] = "node-7"

    assert observed(body) == ObservedPod(
        name="first-trainer-0",
        uid="pod-first-trainer-0",
        role="trainer",
        index=0,
        attempt=2,
        owner="run",
        phase="Running",
        ready=True,
        scheduled=True,
        node="node-7",
        ip="10.88.0.12",
    )


# Owners and labels


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"seele.dev/run": ""},
        {"seele.dev/role": "spectator"},
        {"seele.dev/index": "first"},
        {"seele.dev/index": "-1"},
        {"seele.dev/attempt": "two"},
        {"seele.dev/attempt": "1.5"},
        {"seele.dev/attempt": "9" * 5000},
        {"seele.dev/attempt": "٣"},
        {"seele.dev/attempt": 2},
    ],
)
def test_a_pod_without_the_labels_of_a_runs_pod_is_ignored(labels: Body) -> None:
    body = pod_body()
    body["metadata"]["labels"] = body["metadata"]["labels"] | labels if labels else {}

    assert observe_pod(body, UID) is None


def test_a_pod_of_an_older_run_of_the_same_name_is_foreign() -> None:
    pod = observe_pod(pod_body(), "another-uid")

    assert pod is not None
    assert pod.owner == "other"


def test_a_pod_whose_owner_is_not_its_controller_is_an_orphan() -> None:
    body = pod_body()
    body["metadata"]["ownerReferences"][0]["controller"] = False

    assert observed(body).owner == "none"


def test_an_orphan_under_another_name_is_a_copy() -> None:
    body = pod_body(ownerReferences=[])
    assert observed(body).owner == "none"

    body["metadata"]["name"] = "first-trainer-0-debug"
    assert observed(body).owner == "other"


def test_the_time_of_a_deletion_is_that_of_the_request() -> None:
    pod = observed(pod_body(RUNNING, deletionTimestamp="2026-11-22T20:10:30Z", deletionGracePeriodSeconds=30))

    assert pod.terminating
    assert pod.terminating_since == datetime(2026, 11, 22, 20, 10, tzinfo=UTC)


# Why a pod waits


WAITING: dict[str, tuple[Body, Waiting]] = {
    "no node has room": (
        unscheduled("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
        Waiting("Unschedulable", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
    ),
    "a queue holds it back": (
        unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
        Waiting("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates"),
    ),
    "just made": ({}, Waiting("NotYetScheduled", "scheduler default-scheduler has not looked at the pod yet")),
    "image": (
        waiting("ImagePullBackOff", 'Back-off pulling image "seele:9"'),
        Waiting("ImagePullBackOff", 'container trainer: Back-off pulling image "seele:9"'),
    ),
    "secret": (
        waiting("CreateContainerConfigError", 'secret "hf" not found'),
        Waiting("CreateContainerConfigError", 'container trainer: secret "hf" not found'),
    ),
    "no message": (waiting("ErrImageNeverPull"), Waiting("ErrImageNeverPull", "container trainer: ErrImageNeverPull")),
    "volumes are mounted": (
        waiting("ContainerCreating"),
        Waiting("ContainerCreating", "container trainer: ContainerCreating"),
    ),
    "an init container's image": (
        waiting(
            "PodInitializing",
            initContainerStatuses=[container("prepare-model", waiting={"reason": "InvalidImageName", "message": "no"})],
        ),
        Waiting("InvalidImageName", "container prepare-model: no"),
    ),
    "a sidecar's image": (
        waiting(
            "ContainerCreating",
            containerStatuses=[
                container(waiting={"reason": "ContainerCreating"}),
                container("logs", waiting={"reason": "ErrImagePull", "message": "not found"}),
            ],
        ),
        Waiting("ErrImagePull", "container logs: not found"),
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_why_a_pod_waits(case: str) -> None:
    status, expected = WAITING[case]

    assert observed(pod_body(status)).waiting == expected


def test_reasons_that_every_pod_has_at_first_are_normal() -> None:
    assert not Waiting("Unschedulable", "").normal
    assert not Waiting("ErrImagePull", "").normal
    assert all(Waiting(reason, "").normal for reason in ("ContainerCreating", "PodInitializing", "NotYetScheduled"))


def test_a_pod_that_runs_or_has_ended_waits_for_nothing() -> None:
    ready = pod_body(RUNNING)
    ready["spec"]["nodeName"] = "node-7"
    assert observed(ready).waiting is None
    assert observed(pod_body(failed(ended()))).waiting is None


# Deletion


@pytest.mark.parametrize(
    ("container_status", "expected"),
    [
        (ended(code=143, at="20:05:02"), ("disruption", "PodDeleted")),
        (ended(code=137, at="20:05:30"), ("disruption", "PodDeleted")),
        (ended(code=1, at="20:05:03"), ("disruption", "PodDeleted")),
        (ended(code=1, at="20:04:00"), ("application", "Error")),
        (ended(code=137, reason="OOMKilled", at="20:05:03"), ("application", "OOMKilled")),
    ],
    ids=["at once", "killed at last", "peers gone", "failed before", "out of memory meanwhile"],
)
def test_a_container_that_ended_after_the_deletion_request_ended_because_of_it(
    container_status: Body, expected: tuple[str, str]
) -> None:
    failure = observed(pod_body(failed(container_status), **ASKED)).failure

    assert failure is not None
    assert (failure.failure_class, failure.reason) == expected


def test_a_deleted_pod_is_a_disruption() -> None:
    pod = observed(pod_body(RUNNING, **ASKED))

    assert pod.failure is None
    assert deletion_failure(pod) == PodFailure(
        "disruption", "PodDeleted", None, None, "pod first-trainer-0 was deleted, and not by the operator"
    )


def test_a_pod_evicted_by_a_taint_has_that_reason() -> None:
    conditions = [
        state("DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute")
    ]
    failure = deletion_failure(observed(pod_body({**RUNNING, "conditions": conditions}, **ASKED)))

    assert (failure.failure_class, failure.reason) == ("disruption", "DeletionByTaintManager")
    assert "NoExecute" in failure.message


def test_a_pod_deleted_with_its_lost_node_has_that_reason_on_old_releases() -> None:
    body = pod_body(lost(), **ASKED)
    body["spec"]["nodeName"] = "node-7"

    failure = deletion_failure(observed(body))
    assert (failure.reason, failure.message) == ("NodeLost", "pod first-trainer-0: node node-7 does not answer")


def test_a_pod_deleted_with_its_lost_node_has_that_reason_on_new_releases() -> None:
    status = lost()
    status["conditions"] = [*status["conditions"], state("DisruptionTarget", "True", "DeletionByTaintManager", "taint")]

    assert deletion_failure(observed(pod_body(status, **ASKED))).reason == "NodeLost"


def test_a_closed_readiness_gate_is_not_a_lost_node() -> None:
    assert deletion_failure(observed(pod_body(lost("ReadinessGatesNotReady"), **ASKED))).reason == "PodDeleted"


def test_a_pod_on_a_silent_node_is_running_until_it_is_deleted() -> None:
    pod = observed(pod_body(lost()))

    assert (pod.phase, pod.failure, pod.disruption, pod.ready) == ("Running", None, None, False)
