"""What the operator makes of raw pods: who owns them, why they wait, and why they failed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seele_operator.observe import ObservedPod, PodFailure, Waiting, deletion_failure, observe_pod
from seele_operator.pod_failure import shortened

pytestmark = pytest.mark.unit

UID = "c7be2f27-4b5e-4d21-9a5e-1f3a8a6f2f10"
Body = dict[str, Any]


def pod_body(status: Body | None = None, role: str = "trainer", **metadata: Any) -> Body:
    """A pod as the API server gives it, of the run `first` in its second attempt."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"first-{role}-0",
            "namespace": "default",
            "uid": "0f4c8f53-6d4c-4f2c-8f7d-0b1c2d3e4f50",
            "resourceVersion": "1234",
            "creationTimestamp": "2026-11-22T20:00:00Z",
            "labels": {
                "app.kubernetes.io/name": "seele",
                "seele.dev/run": "first",
                "seele.dev/role": role,
                "seele.dev/index": "0",
                "seele.dev/attempt": "2",
            },
            "ownerReferences": [
                {
                    "apiVersion": "seele.dev/v1alpha1",
                    "kind": "SeeleRun",
                    "name": "first",
                    "uid": UID,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
            **metadata,
        },
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": role}]},
        "status": status if status is not None else {"phase": "Pending", "qosClass": "BestEffort"},
    }


def observed(body: Body) -> ObservedPod:
    pod = observe_pod(body, UID)
    assert pod is not None
    return pod


def container(name: str = "trainer", **state: Body) -> Body:
    return {
        "name": name,
        "image": "ghcr.io/seele-dev/seele:0.1.0",
        "imageID": "",
        "ready": False,
        "restartCount": 0,
        "state": state,
    }


def ended(name: str = "trainer", code: int = 1, reason: str = "Error", message: str = "", at: str = "20:05:00") -> Body:
    terminated = {"exitCode": code, "reason": reason, "startedAt": "2026-11-22T20:01:00Z"}
    terminated |= {"finishedAt": f"2026-11-22T{at}Z", "containerID": "containerd://aa"}
    return container(name, terminated=terminated | ({"message": message} if message else {}))


def running(name: str = "trainer") -> Body:
    return {**container(name, running={"startedAt": "2026-11-22T20:01:00Z"}), "ready": True, "started": True}


def failed(*containers: Body, **status: Any) -> Body:
    return {"phase": "Failed", "containerStatuses": list(containers), **status}


def state(kind: str, status: str, reason: str = "", message: str = "") -> Body:
    stated = {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": "2026-11-22T20:00:00Z"}
    return stated | {key: value for key, value in (("reason", reason), ("message", message)) if value}


RUNNING: Body = {
    "phase": "Running",
    "conditions": [state("Initialized", "True"), state("Ready", "True"), state("ContainersReady", "True")],
    "hostIP": "10.0.0.7",
    "podIP": "10.88.0.12",
    "containerStatuses": [running()],
}


def test_a_pod_that_runs() -> None:
    body = pod_body(RUNNING)
    body["spec"]["nodeName"] = "node-7"

    assert observed(body) == ObservedPod(
        name="first-trainer-0",
        uid="0f4c8f53-6d4c-4f2c-8f7d-0b1c2d3e4f50",
        role="trainer",
        index=0,
        attempt=2,
        owner="run",
        phase="Running",
        ready=True,
        scheduled=True,
        terminating_since=None,
        node="node-7",
        ip="10.88.0.12",
        failure=None,
        waiting=None,
        disruption=None,
    )


# Who owns a pod, and whether it is one of a run's at all


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
def test_a_pod_without_the_labels_of_a_runs_pod_is_none(labels: Body) -> None:
    body = pod_body()
    body["metadata"]["labels"] = body["metadata"]["labels"] | labels if labels else {}

    assert observe_pod(body, UID) is None


def test_a_pod_of_an_older_run_of_the_same_name_belongs_to_somebody_else() -> None:
    pod = observe_pod(pod_body(), "another-uid")

    assert pod is not None
    assert pod.owner == "other"


def test_an_owner_that_does_not_control_the_pod_leaves_it_an_orphan() -> None:
    body = pod_body()
    body["metadata"]["ownerReferences"][0]["controller"] = False

    assert observed(body).owner == "nobody"


def test_an_orphan_under_another_name_is_somebodys_copy() -> None:
    body = pod_body(ownerReferences=[])
    assert observed(body).owner == "nobody"

    body["metadata"]["name"] = "first-trainer-0-debug"
    assert observed(body).owner == "other"


def test_the_time_of_a_deletion_is_when_it_was_asked_for() -> None:
    pod = observed(pod_body(RUNNING, deletionTimestamp="2026-11-22T20:10:30Z", deletionGracePeriodSeconds=30))

    assert pod.terminating
    assert pod.terminating_since == datetime(2026, 11, 22, 20, 10, tzinfo=UTC)


# Why a pod waits


def unscheduled(reason: str, message: str) -> Body:
    return {"phase": "Pending", "conditions": [state("PodScheduled", "False", reason, message)]}


def waiting(reason: str, message: str = "", **others: Any) -> Body:
    return {
        "phase": "Pending",
        "conditions": [state("PodScheduled", "True"), state("ContainersReady", "False", "ContainersNotReady")],
        "containerStatuses": [container(waiting={"reason": reason} | ({"message": message} if message else {}))],
        **others,
    }


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


def test_what_every_pod_waits_for_is_normal() -> None:
    assert not Waiting("Unschedulable", "").normal
    assert not Waiting("ErrImagePull", "").normal
    assert all(Waiting(reason, "").normal for reason in ("ContainerCreating", "PodInitializing", "NotYetScheduled"))


def test_a_pod_that_runs_or_has_ended_waits_for_nothing() -> None:
    ready = pod_body(RUNNING)
    ready["spec"]["nodeName"] = "node-7"
    assert observed(ready).waiting is None
    assert observed(pod_body(failed(ended()))).waiting is None


# Why a pod failed: status, and the expected class, reason, container and exit code

NEVER_PULLED = container(waiting={"reason": "PodInitializing"})
EVICTED = "The node was low on resource: memory. Container trainer was using 9Gi, which exceeds its request of 8Gi."
FAILURES: dict[str, tuple[Body, str, str, str | None, int | None]] = {
    "an error": (failed(ended()), "application", "Error", "trainer", 1),
    "out of memory": (failed(ended(code=137, reason="OOMKilled")), "application", "OOMKilled", "trainer", 137),
    "a child out of memory": (failed(ended(code=1, reason="OOMKilled")), "application", "OOMKilled", "trainer", 1),
    "killed": (failed(ended(code=137)), "application", "Error", "trainer", 137),
    "segmentation fault": (failed(ended(code=139)), "application", "Error", "trainer", 139),
    "bad input": (failed(ended(code=2)), "application", "BadInput", "trainer", 2),
    "bad input of an init container": (
        failed(NEVER_PULLED, initContainerStatuses=[ended("prepare-model", 2)]),
        "application",
        "BadInput",
        "prepare-model",
        2,
    ),
    "a sidecar's code 2": (failed(running(), ended("logs", 2)), "application", "Error", "logs", 2),
    "vLLM's code 2": (failed(ended("rollout", 2)), "application", "Error", "rollout", 2),
    "terminated from outside": (failed(ended(code=143)), "disruption", "Terminated", "trainer", 143),
    "interrupted from outside": (failed(ended(code=130)), "disruption", "Terminated", "trainer", 130),
    "no such command": (
        failed(ended(code=128, reason="StartError", message='exec: "seele": executable file not found in $PATH')),
        "application",
        "StartError",
        "trainer",
        128,
    ),
    "the main container before a sidecar": (
        failed(ended("logs", 9), ended("trainer", 1)),
        "application",
        "Error",
        "trainer",
        1,
    ),
    # Kubernetes 1.20 says it in status.reason alone, often while the containers are still being killed.
    "evicted": (failed(running(), reason="Evicted", message=EVICTED), "disruption", "Evicted", None, None),
    "evicted, containers ended": (
        failed(ended(code=137), reason="Evicted", message=EVICTED),
        "disruption",
        "Evicted",
        "trainer",
        137,
    ),
    "preempted on its node": (
        failed(reason="Preempting", message="Preempted in order to admit critical pod"),
        "disruption",
        "Preempted",
        None,
        None,
    ),
    "its node shut down, 1.20": (
        failed(reason="Shutdown", message="Node is shutting, evicting pods"),
        "disruption",
        "NodeShutdown",
        None,
        None,
    ),
    "not admitted": (
        failed(reason="OutOfnvidia.com/gpu", message="Node didn't have enough resource: nvidia.com/gpu"),
        "disruption",
        "OutOfnvidia.com/gpu",
        None,
        None,
    ),
    "device plugin": (
        failed(reason="UnexpectedAdmissionError", message="Allocate failed due to no healthy devices present"),
        "disruption",
        "UnexpectedAdmissionError",
        None,
        None,
    ),
    "labels of the node changed": (
        failed(reason="NodeAffinity", message="Predicate NodeAffinity failed"),
        "disruption",
        "NodeAffinity",
        None,
        None,
    ),
    "no such sysctl": (
        failed(reason="SysctlForbidden", message="forbidden sysctl"),
        "application",
        "SysctlForbidden",
        None,
        None,
    ),
    "a deadline of its own": (
        failed(reason="DeadlineExceeded", message="Pod was active on the node longer than the specified deadline"),
        "application",
        "DeadlineExceeded",
        None,
        None,
    ),
    "nothing said": ({"phase": "Failed"}, "disruption", "PodFailed", None, None),
    # From 1.26 on there is a condition besides.
    "its node shut down": (
        failed(
            ended(code=137, reason="ContainerStatusUnknown"),
            reason="Terminated",
            message="Pod was terminated in response to imminent node shutdown.",
            conditions=[state("DisruptionTarget", "True", "TerminationByKubelet", "Pod was terminated")],
        ),
        "disruption",
        "NodeShutdown",
        "trainer",
        137,
    ),
    "the node was rebooted": (
        failed(ended(code=137, reason="ContainerStatusUnknown")),
        "disruption",
        "ContainerStatusUnknown",
        "trainer",
        137,
    ),
    **{
        reason: (
            failed(ended(code=1), conditions=[state("DisruptionTarget", "True", reason, "what happened to it")]),
            "disruption",
            reason,
            "trainer",
            1,
        )
        for reason in (
            "PreemptionByScheduler",
            "DeletionByTaintManager",
            "EvictionByEvictionAPI",
            "DeletionByPodGC",
            "TerminationByKubelet",
        )
    },
    "a disruption that did not come": (
        failed(ended(), conditions=[state("DisruptionTarget", "False", "PreemptionByScheduler")]),
        "application",
        "Error",
        "trainer",
        1,
    ),
    "evicted by Kueue": (
        failed(ended(code=143), conditions=[state("TerminationTarget", "True", "WorkloadEvictedDueToPreempted")]),
        "disruption",
        "WorkloadEvictedDueToPreempted",
        "trainer",
        143,
    ),
    # The phase lags behind while sidecars run.
    "a sidecar runs on": (
        {"phase": "Running", "containerStatuses": [running("logs"), ended()]},
        "application",
        "Error",
        "trainer",
        1,
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_why_a_pod_failed(case: str) -> None:
    status, *expected = FAILURES[case]
    role = "rollout" if "vLLM" in case or "init" in case else "trainer"
    failure = observed(pod_body(status, role)).failure

    assert failure is not None
    assert [failure.failure_class, failure.reason, failure.container, failure.exit_code] == expected
    assert failure.hopeless == (failure.reason == "BadInput")
    assert len(failure.message) > 10


def test_the_message_has_the_kubelets_words_or_the_log() -> None:
    log = "Traceback (most recent call last):\nRuntimeError: CUDA error"
    crashed, evicted = failed(ended(code=139, message=log)), failed(reason="Evicted", message=EVICTED)

    assert message(crashed) == f"container trainer ended, with exit code 139 (SIGSEGV):\n{log}"
    assert message(evicted) == EVICTED
    assert "more memory than its limit" in message(failed(ended(code=137, reason="OOMKilled")))


def message(status: Body) -> str:
    failure = observed(pod_body(status)).failure
    assert failure is not None
    return failure.message


def test_the_end_of_a_container_is_dated() -> None:
    failure = observed(pod_body(failed(ended(at="20:07:30")))).failure

    assert failure is not None
    assert failure.ended_at == datetime(2026, 11, 22, 20, 7, 30, tzinfo=UTC)


def test_a_sidecar_that_failed_while_the_main_container_runs_is_no_failure() -> None:
    pod = observed(pod_body({"phase": "Running", "containerStatuses": [running(), ended("logs")]}))

    assert (pod.phase, pod.failure) == ("Running", None)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running", "containerStatuses": [running("logs"), ended(code=0, reason="Completed")]},
        failed(ended("logs", 1), ended(code=0, reason="Completed")),
        failed(ended(code=0, reason="Completed"), reason="Evicted", message=EVICTED),
        {"phase": "Succeeded"},
    ],
    ids=["sidecar runs on", "sidecar failed", "evicted when it was done", "plain"],
)
def test_a_trainer_whose_main_container_ended_well_has_succeeded(status: Body) -> None:
    pod = observed(pod_body(status))

    assert (pod.phase, pod.failure) == ("Succeeded", None)
    assert pod.lingers == (status["phase"] == "Running")


def test_a_server_that_ended_well_because_it_was_evicted_has_failed() -> None:
    pod = observed(pod_body(failed(ended("rollout", 0, "Completed"), reason="Evicted", message=EVICTED), "rollout"))

    assert pod.phase == "Failed"
    assert pod.failure is not None
    assert pod.failure.reason == "Evicted"


# Deletion

ASKED = {"deletionTimestamp": "2026-11-22T20:05:30Z", "deletionGracePeriodSeconds": 30}


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
def test_a_container_that_ended_after_its_pods_deletion_was_asked_for_ended_by_it(
    container_status: Body, expected: tuple[str, str]
) -> None:
    failure = observed(pod_body(failed(container_status), **ASKED)).failure

    assert failure is not None
    assert (failure.failure_class, failure.reason) == expected


def test_a_pod_that_somebody_deletes_is_a_disruption() -> None:
    pod = observed(pod_body(RUNNING, **ASKED))

    assert pod.failure is None
    assert deletion_failure(pod) == PodFailure(
        "disruption", "PodDeleted", None, None, "pod first-trainer-0 was deleted, and not by the operator"
    )


def test_a_pod_that_a_taint_drives_away_says_so() -> None:
    conditions = [
        state("DisruptionTarget", "True", "DeletionByTaintManager", "Taint manager: deleting due to NoExecute")
    ]
    failure = deletion_failure(observed(pod_body({**RUNNING, "conditions": conditions}, **ASKED)))

    assert (failure.failure_class, failure.reason) == ("disruption", "DeletionByTaintManager")
    assert "NoExecute" in failure.message


def lost(reason: str = "") -> Body:
    conditions = [state("Ready", "False", reason), state("ContainersReady", "True")]
    return {**RUNNING, "conditions": conditions}


def test_a_pod_that_is_deleted_with_its_lost_node_says_so_on_old_releases_too() -> None:
    body = pod_body(lost(), **ASKED)
    body["spec"]["nodeName"] = "node-7"

    failure = deletion_failure(observed(body))
    assert (failure.reason, failure.message) == ("NodeLost", "pod first-trainer-0: node node-7 does not answer")


def test_a_lost_node_is_called_so_on_new_releases_too() -> None:
    status = lost()
    status["conditions"] = [*status["conditions"], state("DisruptionTarget", "True", "DeletionByTaintManager", "taint")]

    assert deletion_failure(observed(pod_body(status, **ASKED))).reason == "NodeLost"


def test_a_closed_readiness_gate_is_no_lost_node() -> None:
    assert deletion_failure(observed(pod_body(lost("ReadinessGatesNotReady"), **ASKED))).reason == "PodDeleted"


def test_a_pod_on_a_silent_node_that_nobody_deletes_goes_on() -> None:
    pod = observed(pod_body(lost()))

    assert (pod.phase, pod.failure, pod.disruption, pod.ready) == ("Running", None, None, False)


# Long logs


def test_a_short_log_stays_as_it_is() -> None:
    assert shortened("one\ntwo\n", 10) == "one\ntwo"


def test_a_long_log_begins_at_a_line() -> None:
    assert shortened("first line\nsecond\nthird", 12) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 13) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 11) == "third"


def test_a_long_line_is_cut() -> None:
    assert shortened("abcdefghij", 4) == "…hij"


@given(st.text(alphabet="ab\n", max_size=60), st.integers(2, 20))
def test_what_is_left_of_a_log_is_its_end(log: str, limit: int) -> None:
    left = shortened(log, limit)

    assert len(left) <= limit
    assert log.strip().endswith(left.removeprefix("…"))


# Anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, part in inner for found in places(part, (*path, key)))]


GONE = object()


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """`value` with `new` in the place of `path`, or without that place."""
    if not path:
        return new
    key, *rest = path
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value))
    changed = [(name, replaced(part, tuple(rest), new) if name == key else part) for name, part in pairs]
    kept = [(name, part) for name, part in changed if part is not GONE]
    return dict(kept) if isinstance(value, dict) else [part for _, part in kept]


FULL = pod_body(
    failed(
        ended(), running("logs"), initContainerStatuses=[ended("prepare-model", 0)], conditions=lost()["conditions"]
    ),
    **ASKED,
)
STARTING = pod_body(waiting("ImagePullBackOff", "no", initContainerStatuses=[ended("prepare-model", 0)]))


@settings(max_examples=400)
@given(st.sampled_from([FULL, STARTING]), st.data())
def test_no_body_is_too_strange(body: Body, data: st.DataObject) -> None:
    """Whatever stands in any place of a pod, and whatever is missing, it is read or ignored, and never an error."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(places(body)[1:]))
        body = replaced(body, path, data.draw(st.just(GONE) | JSON))
    pod = observe_pod(body, UID)
    if pod is not None:
        # What `decide` relies on: a failed pod says why, one that is well does not.
        assert (pod.phase != "Failed") or pod.failure is not None
        assert (pod.phase != "Succeeded") or pod.failure is None
        assert pod.failure is None or pod.waiting is None
