"""Runs in a cluster, from `kubectl apply` to the files in their folder."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
import yaml

from tests.e2e.cluster.clusters import Cluster
from tests.e2e.cluster.single_node import CGROUP
from tests.e2e.runs import QUICKSTART, records
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.spec_data import patched
from tests.support.waiting import wait_for

NAMESPACE = "default"
ROLE = "seele.dev/role"
ATTEMPT = "seele.dev/attempt"

IN_PROCESS: dict[str, Any] = {
    "training": {"steps": 12, "problemsPerStep": 4, "problemsPerUpdate": 2, "learningRateSchedule": "linear"},
    "hints": {"rounds": 3, "rolloutsPerRound": 4, "unhintedProbes": 2},
    "rollout": {"engine": "transformers"},
    "evaluation": {"everySteps": 0, "benchmarks": []},
    "checkpoints": {"everySteps": 2},
}
"""A small run that samples inside the trainer, so that it is fast and reproducible."""


def run_manifest(name: str, spec: Mapping[str, Any]) -> Body:
    """The quickstart's SeeleRun with another name and folder, and with changes to its spec."""
    run: Body = yaml.safe_load(QUICKSTART.read_text())
    run["metadata"]["name"] = name
    storage = {"storage": {"run": {"hostPath": {"path": f"/var/lib/seele/{name}"}}}}
    run["spec"] = patched(patched(run["spec"], storage), spec)
    return run


@dataclass
class History:
    """Changes of a run and its pods as seen by a watch, in order."""

    phases: list[str] = field(default_factory=list)
    """Phases of the run, in the order in which they were entered."""
    together: list[dict[str, str]] = field(default_factory=list)
    """Names and attempts of the existing pods after each change."""

    container_restarts: dict[str, int] = field(default_factory=dict)
    """Maximum restart count of a container, by the pod's name."""

    def attempts_together(self) -> set[int]:
        """Numbers of attempts that had pods at the same time: at most {0, 1} if attempts never overlapped."""
        return {len(set(pods.values())) for pods in self.together}


class ClusterRun:
    """A run that was applied to a cluster."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.name = name
        self.history = History()
        self._cluster = cluster
        self._api = cluster.api
        self._copy: Path | None = None
        for resource, report in (("seeleruns", self._run_changed), ("pods", self._pod_changed)):
            threading.Thread(target=_follow, args=(cluster.api, resource, report), daemon=True).start()

    def apply(self, path: Path) -> None:
        """`kubectl apply -f`."""
        self._cluster.kubectl("apply", "-f", str(path))

    def body(self) -> Body:
        """The SeeleRun."""
        body = self._api.get("seeleruns", self.name, NAMESPACE)
        assert body is not None, f"the run {self.name} is gone"
        return body

    def status(self) -> Body:
        """Its status."""
        return self.body().get("status") or {}

    def conditions(self) -> dict[str, str]:
        """Statuses of its conditions by type."""
        return {condition["type"]: condition["status"] for condition in self.status().get("conditions") or ()}

    def pods(self, role: str = "") -> list[Body]:
        """Its pods, of one role or of both."""
        selector = f"seele.dev/run={self.name}" + (f",{ROLE}={role}" if role else "")
        return self._api.list("pods", NAMESPACE, selector)

    def events(self) -> list[Body]:
        """Kubernetes Events about it."""
        return [
            event
            for event in self._api.list("events", NAMESPACE)
            if (event["involvedObject"]["kind"], event["involvedObject"]["name"]) == ("SeeleRun", self.name)
        ]

    def patch(self, spec: Mapping[str, Any]) -> None:
        """Change its spec, as `kubectl patch --type merge`."""
        self._api.patch("seeleruns", self.name, NAMESPACE, {"spec": spec})

    def delete(self) -> None:
        """Delete it and wait until its pods are gone."""
        self._api.delete("seeleruns", self.name, NAMESPACE)
        wait_for(lambda: not self.pods(), lambda: f"the pods of {self.name} are gone: {self.describe()}", 120)

    def reach(self, what: str, condition: Callable[[Body], object], seconds: float) -> Body:
        """Wait until the status satisfies `condition`. Raises AssertionError early if the run fails."""

        def reached() -> Body | None:
            status = self.status()
            if condition(status):
                return status
            assert self._cluster.operator.running, f"the operator has ended: {self._cluster.operator.log()}"
            assert status.get("phase") != "Failed", f"failed before {what}: {self.describe()}"
            return None

        return wait_for(reached, lambda: f"{self.name}: {what}: {self.describe()}", seconds) or {}

    def reach_step(self, step: int, seconds: float = 300) -> Body:
        """Wait for `step` or a later one; returns the status."""
        return self.reach(f"step {step}", lambda status: (status.get("step") or 0) >= step, seconds)

    def reach_phase(self, phase: str, seconds: float = 300) -> Body:
        """Wait for `phase`; returns the status."""
        return self.reach(f"phase {phase}", lambda status: status.get("phase") == phase, seconds)

    def trainer_answers(self, path: str) -> str:
        """The answer of trainer 0 to a request."""
        address = self.pods("trainer")[0]["status"]["podIP"]
        answer = requests.get(f"http://{address}:9400/{path}", timeout=10)
        answer.raise_for_status()
        return answer.text

    @property
    def folder(self) -> Path:
        """Its folder on this machine; on an external node, a copy that is made on first use."""
        path = self.body()["spec"]["storage"]["run"]["hostPath"]["path"]
        if self._cluster.node is not None:
            return self._cluster.node.volume(path)
        if self._copy is None:
            self._copy = self._cluster.copy_of(path, f"{self.name}-reader")
        return self._copy

    def steps(self) -> list[Body]:
        """The lines of its metrics.jsonl."""
        return records(self.folder, "metrics.jsonl")

    def processes(self, pod: str) -> list[psutil.Process]:
        """The processes in one of its pods, oldest first."""
        return sorted(processes_of(pod), key=lambda process: process.create_time())

    def kill(self, pod: str) -> None:
        """Kill the first process of a pod."""
        self.processes(pod)[0].kill()

    def describe(self) -> str:
        """The status of the run and its pods, for the message of a failed test."""
        parts = [yaml.safe_dump((self._api.get("seeleruns", self.name, NAMESPACE) or {}).get("status"))]
        for pod in self.pods():
            parts.append(f"{pod['metadata']['name']}: {yaml.safe_dump(pod.get('status'))}")
        return "\n".join(parts)[-8000:]

    def _run_changed(self, _: str, body: Body) -> None:
        phase = (body.get("status") or {}).get("phase")
        if body["metadata"]["name"] == self.name and phase and self.history.phases[-1:] != [phase]:
            self.history.phases.append(phase)

    def _pod_changed(self, event: str, body: Body) -> None:
        labels = body["metadata"].get("labels") or {}
        if labels.get("seele.dev/run") != self.name:
            return
        name, restarts = body["metadata"]["name"], self.history.container_restarts
        containers = (body.get("status") or {}).get("containerStatuses") or ()
        restarts[name] = max(restarts.get(name, 0), *(one["restartCount"] for one in containers), 0)
        pods = dict(self.history.together[-1]) if self.history.together else {}
        if event == "DELETED":
            pods.pop(body["metadata"]["name"], None)
        else:
            pods[body["metadata"]["name"]] = labels[ATTEMPT]
        self.history.together.append(pods)


def processes_of(pod: str) -> Iterator[psutil.Process]:
    """Processes of this machine in containers of a pod."""
    for process in psutil.process_iter(["environ"]):
        if (process.info["environ"] or {}).get("HOSTNAME") == pod and _in_our_node(process):
            yield process


def attempts_running(run: str) -> set[str]:
    """Attempts of a run with a trainer process on this machine, regardless of the API server."""
    found = set()
    for process in psutil.process_iter(["environ"]):
        environment = process.info["environ"] or {}
        of_run = environment.get("HOSTNAME", "").startswith(f"{run}-trainer-")
        if of_run and "SEELE_ATTEMPT" in environment and _in_our_node(process):
            found.add(environment["SEELE_ATTEMPT"])
    return found


def _in_our_node(process: psutil.Process) -> bool:
    try:
        return f"/{CGROUP}/" in Path(f"/proc/{process.pid}/cgroup").read_text()
    except OSError:
        return False


def _follow(api: KubernetesApi, resource: str, report: Callable[[str, Body], None]) -> None:
    """Report all objects of a resource and their changes until the API server is gone."""
    try:
        listed = api.list_raw(resource, NAMESPACE)
        for item in listed["items"]:
            report("ADDED", item)
        for event in api.watch(resource, NAMESPACE, listed["metadata"]["resourceVersion"], seconds=3600):
            if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                report(event["type"], event["object"])
    except (requests.RequestException, ApiError):
        return
