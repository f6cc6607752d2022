"""Raw pods of the run `first` in its second attempt, as the API server gives them, and what the operator makes of one."""

from __future__ import annotations

from typing import Any

from seele_operator.observe.pods import ObservedPod, observe_pod

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
