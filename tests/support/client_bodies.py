"""SeeleRuns and pods as an API server gives them, for tests of the commands for clusters."""

from typing import Any

from typer.testing import CliRunner, Result

from seele_operator.cli import app
from seele_operator.plan import names
from seele_operator.plan.names import Role

Body = dict[str, Any]
RUN_UID = "11111111-0000-0000-0000-000000000000"


def run_body(name: str = "quick", namespace: str = "default", **status: object) -> Body:
    """A run of 60 steps with the given fields in its status; without any, no operator has seen it."""
    return {
        "apiVersion": "seele.dev/v1alpha1",
        "kind": "SeeleRun",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": RUN_UID,
            "generation": 1,
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-22T10:00:00Z",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "model": {"name": "Qwen/Qwen2.5-1.5B"},
            "dataset": {"path": "train.jsonl"},
            "training": {"steps": 60},
        },
        **({"status": {"observedGeneration": 1, **status}} if status else {}),
    }


def pod_body(
    role: Role,
    index: int,
    state: Body | None = None,
    *,
    run: str = "quick",
    attempt: int = 1,
    uid: str | None = None,
    prepared: Body | None = None,
    scheduled: Body | None = None,
) -> Body:
    """A pod of a run. `state` is that of its main container, `prepared` that of its init container, if it has one."""
    name = names.pod(run, role, index)
    state = state or {}
    phase = "Running" if "running" in state else "Pending"
    if "terminated" in state:
        phase = "Succeeded" if state["terminated"]["exitCode"] == 0 else "Failed"
    condition = scheduled or {"type": "PodScheduled", "status": "True"}
    status: Body = {
        "phase": phase,
        "conditions": [condition, {"type": "Ready", "status": "True" if phase == "Running" else "False"}],
        "containerStatuses": [{"name": role, "state": state}],
    }
    spec: Body = {"containers": [{"name": role}]}
    if prepared is not None:
        spec["initContainers"] = [{"name": "prepare-model"}]
        status["initContainerStatuses"] = [{"name": "prepare-model", "state": prepared}]
    if condition["status"] == "True":
        spec["nodeName"] = "node-1"
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": uid or f"{name}-{attempt}",
            "creationTimestamp": "2026-11-22T10:00:05Z",
            "labels": {
                **names.labels(run, role),
                names.INDEX_LABEL: str(index),
                names.ATTEMPT_LABEL: str(attempt),
            },
            "ownerReferences": [{"controller": True, "uid": RUN_UID, "kind": "SeeleRun", "name": run}],
        },
        "spec": spec,
        "status": status,
    }


RUNNING: Body = {"running": {"startedAt": "2026-11-22T10:00:10Z"}}


def ended(exit_code: int = 0, **more: object) -> Body:
    """State of a container that has ended."""
    return {"terminated": {"exitCode": exit_code, "reason": "Error" if exit_code else "Completed", **more}}


def waiting(reason: str, message: str = "") -> Body:
    """State of a container that has not started."""
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def seele(*words: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, list(words))
