"""Raw pods of the run `first` as the API server returns them, and what the operator observes of one."""

from typing import Any

from seele_operator.observe.pods import ObservedPod, observe_pod
from seele_operator.plan import names
from seele_operator.plan.objects import owner_reference

UID = "c7be2f27-4b5e-4d21-9a5e-1f3a8a6f2f10"
Body = dict[str, Any]


def run_pod(
    run: str = "first",
    role: str = "trainer",
    index: int = 0,
    *,
    attempt: int = 1,
    controller: str | None = UID,
    status: Body | None = None,
    **metadata: Any,
) -> Body:
    """A pod of a run as the API server returns it; `controller` is the uid of the owning run, None for an orphan."""
    owners = [] if controller is None else [owner_reference(run, controller)]
    labels = {names.INDEX_LABEL: str(index), names.ATTEMPT_LABEL: str(attempt)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{run}-{role}-{index}",
            "namespace": "lab",
            "uid": f"pod-{run}-{role}-{index}",
            "resourceVersion": "1234",
            "creationTimestamp": "2026-11-22T20:00:00Z",
            "labels": {"app.kubernetes.io/name": "seele", names.RUN_LABEL: run, names.ROLE_LABEL: role, **labels},
            "ownerReferences": owners,
            **metadata,
        },
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": role}]},
        "status": status if status is not None else {"phase": "Pending", "qosClass": "BestEffort"},
    }


def pod_body(status: Body | None = None, role: str = "trainer", **metadata: Any) -> Body:
    """A pod of the run `first` in its second attempt."""
    return run_pod(role=role, attempt=2, status=status, **metadata)


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

EVICTED = "The node was low on resource: memory. Container trainer was using 9Gi, which exceeds its request of 8Gi."
ASKED = {"deletionTimestamp": "2026-11-22T20:05:30Z", "deletionGracePeriodSeconds": 30}


def unscheduled(reason: str, message: str) -> Body:
    return {"phase": "Pending", "conditions": [state("PodScheduled", "False", reason, message)]}


def waiting(reason: str, message: str = "", **others: Any) -> Body:
    return {
        "phase": "Pending",
        "conditions": [state("PodScheduled", "True"), state("ContainersReady", "False", "ContainersNotReady")],
        "containerStatuses": [container(waiting={"reason": reason} | ({"message": message} if message else {}))],
        **others,
    }


def lost(reason: str = "") -> Body:
    conditions = [state("Ready", "False", reason), state("ContainersReady", "True")]
    return {**RUNNING, "conditions": conditions}
