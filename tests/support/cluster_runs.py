"""SeeleRuns in a namespace of a test cluster: created, waited for, and their pods found."""

import contextlib
import json
from typing import Any

from seele_operator.plan.names import ATTEMPT_LABEL, RUN_LABEL, Role
from seele_operator.plan.names import pod as pod_name
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import ApiError, Body
from tests.support.operator_process import OperatorProcess
from tests.support.pod_history import PodHistory
from tests.support.pods_driver import PodsDriver
from tests.support.spec_data import patched
from tests.support.waiting import wait_for

TRAINERS = 2
ROLLOUTS = 1
SECONDS = 60.0
"""For a busy machine; an idle one needs one or two."""


def run_body(name: str, spec: dict[str, Any] | None = None) -> Body:
    """A SeeleRun of two trainers and one rollout server, with `spec` merged into it."""
    body = {
        "apiVersion": "seele.dev/v1alpha1",
        "kind": "SeeleRun",
        "metadata": {"name": name},
        "spec": {
            "model": {"name": "Qwen/Qwen2.5-1.5B"},
            "dataset": {"path": "/data/train.jsonl"},
            "trainer": {"replicas": TRAINERS},
            "rollout": {"replicas": ROLLOUTS},
            "storage": {"run": {"hostPath": {"path": "/var/seele"}}},
        },
    }
    return patched(body, {"spec": spec or {}})


class ClusterRuns:
    """The runs of one namespace."""

    def __init__(
        self, plane: ControlPlane, driver: PodsDriver, operator: OperatorProcess, namespace: str | None = None
    ) -> None:
        self.plane = plane
        self.api = plane.admin
        self.driver = driver
        self.operator = operator
        self.namespace = namespace or plane.namespace()
        self.history = PodHistory(self.api, self.namespace)

    def close(self) -> None:
        """Delete the namespace with everything in it, without waiting."""
        self.history.close()
        self.driver.behave(self.namespace, remove=True, except_for=frozenset())
        # Runs first: if their pods were deleted before them, the runs would restart.
        with contextlib.suppress(ApiError):
            self.api.request("DELETE", self.api.path("seeleruns", None, self.namespace))
        self.api.delete("namespaces", self.namespace)

    # Runs

    def make(self, name: str = "run", spec: dict[str, Any] | None = None) -> Body:
        """Create a run."""
        return self.api.create(run_body(name, spec), self.namespace)

    def edit(self, spec: dict[str, Any], name: str = "run") -> Body:
        """Change a run's spec by a merge patch."""
        return self.api.patch("seeleruns", name, self.namespace, {"spec": spec})

    def suspend(self, suspend: bool, name: str = "run") -> None:
        """Suspend or resume a run."""
        self.edit({"runPolicy": {"suspend": suspend}}, name)

    def delete(self, name: str = "run") -> None:
        """Delete a run."""
        self.api.delete("seeleruns", name, self.namespace)

    def get(self, name: str = "run") -> Body:
        """A run as it is now."""
        body = self.api.get("seeleruns", name, self.namespace)
        assert body is not None, f"run {name} is gone"
        return body

    def gone(self, name: str = "run") -> bool:
        """Whether the run is gone."""
        return self.api.get("seeleruns", name, self.namespace) is None

    def status(self, name: str = "run") -> Body:
        """The status of a run; empty before the first."""
        return dict(self.get(name).get("status") or {})

    def phase(self, name: str = "run") -> str:
        """The phase of a run."""
        return str(self.status(name).get("phase", ""))

    def condition(self, kind: str, name: str = "run") -> Body:
        """A condition of a run; empty if it has none of that type."""
        found = [one for one in self.status(name).get("conditions", []) if one["type"] == kind]
        return found[0] if found else {}

    def until(self, phase: str, name: str = "run", seconds: float = SECONDS, **status: Any) -> Body:
        """Wait for a phase and for fields of the status; returns the status."""

        def reached() -> Body | None:
            now = self.status(name)
            wanted = {"phase": phase, **status}
            return now if all(now.get(field) == value for field, value in wanted.items()) else None

        return wait_for(reached, lambda: f"{name}: {phase} {status or ''}\n{self.story(name)}", seconds)

    def until_condition(self, kind: str, answer: str, reason: str, name: str = "run", seconds: float = SECONDS) -> Body:
        """Wait for a condition with a reason; returns the condition."""

        def reached() -> Body | None:
            now = self.condition(kind, name)
            return now if (now.get("status"), now.get("reason")) == (answer, reason) else None

        return wait_for(reached, lambda: f"{name}: {kind}={answer} {reason}\n{self.story(name)}", seconds)

    def running(self, name: str = "run", spec: dict[str, Any] | None = None) -> Body:
        """Create a run and wait until it is Running; returns its status."""
        self.make(name, spec)
        return self.until("Running", name)

    def bring_to(self, phase: str, name: str = "run") -> Body:
        """Create a run and bring it to a phase, where it stays until `release` is called; returns its status."""
        held = {"Pending": {"schedule": False}, "Starting": {"ready": False}}.get(phase, {})
        if held:
            self.driver.behave(self.namespace, **held)
        if phase == "Suspended":
            self.running(name)
            self.suspend(True, name)
            self.wait_for_pods(0, name)
            return self.until(phase, name)
        if phase in ("Pending", "Starting"):
            self.make(name)
            self.wait_for_pods(name=name)
            return self.until(phase, name)
        status = self.running(name)
        if phase == "Restarting":
            self.driver.behave(self.namespace, remove=False)
            self.driver.finish(self.pod("trainer", 1, name), 1)
            status = self.until(phase, name, attempt=2)
        elif phase == "Succeeded":
            self.finish_trainers(name)
            status = self.until(phase, name)
        elif phase == "Failed":
            self.driver.finish(self.pod("trainer", 0, name), 2)
            status = self.until(phase, name)
        return status

    def finish_trainers(self, name: str = "run") -> None:
        """Let all trainers of a run succeed."""
        for index in reversed(range(TRAINERS)):
            self.driver.finish(self.pod("trainer", index, name), 0)

    def release(self) -> None:
        """Let all held-back pods continue."""
        self.driver.behave(self.namespace, schedule=True, start=True, ready=True, remove=True)
        wait_for(self._all_ready, "all pods are ready")

    def _all_ready(self) -> bool:
        unready = [
            pod
            for pod in self.api.list("pods", self.namespace, RUN_LABEL)
            if pod["status"].get("phase") in ("Pending", "Running")
            and not pod["metadata"].get("deletionTimestamp")
            and not any(
                one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", [])
            )
        ]
        for pod in unready:
            if pod["status"]["phase"] == "Running":
                self.driver.start(pod)
        return not unready

    def events(self, name: str = "run") -> list[str]:
        """The reasons of the Events about a run, oldest first."""
        about = [
            event for event in self.api.list("events", self.namespace) if event["involvedObject"].get("name") == name
        ]
        about.sort(key=lambda event: (event.get("firstTimestamp") or "", event["metadata"]["creationTimestamp"]))
        return [event["reason"] for event in about]

    # Pods

    def pods(self, name: str = "run") -> list[Body]:
        """All pods of a run."""
        return self.api.list("pods", self.namespace, f"{RUN_LABEL}={name}")

    def pod(self, role: Role, index: int = 0, name: str = "run") -> Body:
        """One pod of a run."""
        body = self.api.get("pods", pod_name(name, role, index), self.namespace)
        assert body is not None, f"{name}: {role} {index} is gone"
        return body

    def pods_of_attempt(self, attempt: int, name: str = "run") -> list[Body]:
        """The pods of one attempt."""
        return [pod for pod in self.pods(name) if pod["metadata"]["labels"][ATTEMPT_LABEL] == str(attempt)]

    def wait_for_pods(
        self, count: int = TRAINERS + ROLLOUTS, name: str = "run", seconds: float = SECONDS
    ) -> list[Body]:
        """Wait until a run has exactly `count` pods."""

        def reached() -> list[Body] | None:
            pods = self.pods(name)
            return [*pods] or [{}] if len(pods) == count else None

        found = wait_for(reached, lambda: f"{name}: {count} pods\n{self.story(name)}", seconds)
        return [pod for pod in found if pod]

    def wait_until_gone(self, pods: list[Body], seconds: float = SECONDS) -> None:
        """Wait until none of these pods (by uid) exists any more."""
        uids = {pod["metadata"]["uid"] for pod in pods}
        wait_for(
            lambda: not uids & {pod["metadata"]["uid"] for pod in self.api.list("pods", self.namespace)},
            "pods are gone",
            seconds,
        )

    def limit_pods(self, count: int | None) -> None:
        """Set a quota of `count` pods in the namespace, or remove it (None)."""
        if count is None:
            self.api.delete("resourcequotas", "few", self.namespace)
            return
        spec = {"hard": {"pods": str(count)}}
        quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec}
        self.api.apply(quota, self.namespace)

        def in_force() -> bool:
            stored = self.api.get("resourcequotas", "few", self.namespace) or {}
            return bool(stored.get("status", {}).get("hard") == spec["hard"])

        wait_for(in_force, "the quota is in force")

    def restarted(self, attempt: int = 2, name: str = "run", seconds: float = SECONDS) -> Body:
        """Wait until a later attempt runs with all its pods, and only those; returns the status."""
        status = self.until("Running", name, seconds, attempt=attempt)
        pods = self.pods(name)
        assert {pod["metadata"]["labels"][ATTEMPT_LABEL] for pod in pods} == {str(attempt)}, self.story(name)
        assert len(pods) == TRAINERS + ROLLOUTS
        return status

    def story(self, name: str = "run") -> str:
        """The state of a run, for the message of a failing test."""
        body = self.api.get("seeleruns", name, self.namespace)
        status = (body or {}).get("status") or {}
        status.pop("acceptedSpec", None)
        conditions = [
            f"  {one['type']}={one['status']} {one['reason']} {one.get('message', '')[:200]}"
            for one in status.pop("conditions", [])
        ]
        pods = [
            f"  {pod['metadata']['name']} attempt={pod['metadata']['labels'].get(ATTEMPT_LABEL)} "
            f"{pod['status'].get('phase')} {'terminating' if pod['metadata'].get('deletionTimestamp') else ''}"
            for pod in self.pods(name)
        ]
        return "\n".join(
            [
                f"status: {json.dumps(status)}" if body else "the run is gone",
                *conditions,
                *pods,
                f"events: {self.events(name)}",
                self.operator.log(12),
            ]
        )

    def explain(self) -> None:
        """Print the state of all runs here, for the report of a failed test."""
        for run in self.api.list("seeleruns", self.namespace):
            print(self.story(run["metadata"]["name"]))
