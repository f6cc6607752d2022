"""Plays the scheduler and the kubelets for the pods of runs on a control plane without nodes.

By default, every pod is scheduled, starts, becomes ready, and is removed when it is deleted. Tests change that with
`behave`, and make pods fail. Pods get loopback addresses; at that of trainer 0 a fake trainer answers.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import secrets
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import requests

from seele_operator.plan.names import INDEX_LABEL, ROLE_LABEL, RUN_LABEL
from tests.support.control_plane import free_port
from tests.support.fake_trainers import FakeTrainer, FakeTrainers
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.waiting import wait_for

HEARTBEAT_SECONDS = 1.0
RETRY_SECONDS = 0.2
RELIST_SECONDS = 5
"""How often all pods are checked again."""
WORKERS = 8

Pod = Mapping[str, Any]


@dataclass(frozen=True)
class Behaviour:
    """What happens to the pods of a namespace automatically."""

    schedule: bool = True
    start: bool = True
    ready: bool = True
    remove: bool = True
    """Whether a deleted pod is removed; otherwise it is stuck in Terminating until `remove` is called."""
    except_for: frozenset[str] = frozenset()
    """Names of pods to ignore."""


def now() -> str:
    """The time in Kubernetes' format."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def label(pod: Pod, key: str) -> str:
    """A label of a pod."""
    return str(pod["metadata"].get("labels", {}).get(key, ""))


class PodsDriver(AbstractContextManager["PodsDriver"]):
    """The nodes of a cluster, as the API server sees them."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._trainers = FakeTrainers()
        self._fakes: dict[str, FakeTrainer] = {}
        self._addresses: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._network = random.randrange(2, 255)
        self._behaviours: dict[str, Behaviour] = {}
        self._nodes: set[str] = set()
        self._done = threading.Event()
        self._busy: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, "kubelet")
        self._threads = [
            threading.Thread(target=self._watch, name="pods", daemon=True),
            threading.Thread(target=self._beat, name="heartbeats", daemon=True),
        ]
        self._kubelet_port = free_port()
        self.node = f"node-{secrets.token_hex(4)}"
        """The node of pods that no test places elsewhere."""

    def __enter__(self) -> PodsDriver:
        self._trainers.__enter__()
        self._kubelet = self._trainers.open_kubelet(self._kubelet_port, self._api.certificate_authority)
        self.add_node(self.node)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._pool.shutdown(cancel_futures=True)
        # With too many lost nodes, Kubernetes suspects itself and stops evicting pods.
        for name in list(self._nodes):
            with contextlib.suppress(OSError, requests.RequestException, ApiError):
                self.delete_node(name)
        self._trainers.__exit__()

    # Automatic behaviour

    def behave(self, namespace: str, **changes: Any) -> None:
        """Change what happens to the pods of a namespace, including existing ones."""
        self._behaviours[namespace] = replace(self._behaviours.get(namespace, Behaviour()), **changes)
        for pod in self._api.list("pods", namespace, RUN_LABEL):
            self._look_at(pod)

    def _watch(self) -> None:
        while not self._done.is_set():
            try:
                listed = self._api.list_raw("pods", None, RUN_LABEL)
                for pod in listed["items"]:
                    self._look_at(pod)
                version = listed["metadata"]["resourceVersion"]
                for event in self._api.watch("pods", None, version, RUN_LABEL, RELIST_SECONDS):
                    if event["type"] in ("ADDED", "MODIFIED"):
                        self._look_at(event["object"])
                    elif event["type"] == "DELETED":
                        self._forget(event["object"])
                    if self._done.is_set():
                        return
            except (OSError, requests.RequestException, ApiError, ValueError):
                self._done.wait(RETRY_SECONDS)  # the API server is down

    def _look_at(self, pod: Pod) -> None:
        step = self._next_step(pod)
        if step is None:
            return
        uid = pod["metadata"]["uid"]
        with self._lock:
            if uid in self._busy or self._done.is_set():
                return
            self._busy.add(uid)

        def work() -> None:
            done = False
            try:
                # Gone, changed or no server: the next check decides again.
                with contextlib.suppress(OSError, requests.RequestException, ApiError):
                    step(pod)
                    done = True
            finally:
                with self._lock:
                    self._busy.discard(uid)
            # Events during the step were skipped.
            with contextlib.suppress(OSError, requests.RequestException, ApiError):
                fresh = self._api.get("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])
                if fresh is None or fresh["metadata"]["uid"] != uid or (done and self._next_step(fresh) == step):
                    return
                self._look_at(fresh)

        with contextlib.suppress(RuntimeError):  # the pool is shut down
            self._pool.submit(work)

    def _next_step(self, pod: Pod) -> Callable[[Pod], None] | None:
        metadata = pod["metadata"]
        behaviour = self._behaviours.get(metadata["namespace"], Behaviour())
        if metadata["name"] in behaviour.except_for:
            return None
        if metadata.get("deletionTimestamp"):
            lost = pod["spec"].get("nodeName") not in self._nodes
            return self.remove if behaviour.remove and not lost else None
        if not pod["spec"].get("nodeName"):
            return self.schedule if behaviour.schedule else None
        if pod.get("status", {}).get("phase") == "Pending":
            return self._start_automatically if behaviour.start else None
        return None

    def _start_automatically(self, pod: Pod) -> None:
        ready = self._behaviours.get(pod["metadata"]["namespace"], Behaviour()).ready
        # The watch's pod may be stale: if it has started since, starting it again would change it.
        self.start(pod, ready=ready, version=pod["metadata"]["resourceVersion"])

    def _forget(self, pod: Pod) -> None:
        uid = pod["metadata"]["uid"]
        self._fakes.pop(uid, None)
        address = self._addresses.pop(uid, None)
        if address is not None:
            self._trainers.close(address)

    # The scheduler

    def schedule(self, pod: Pod, node: str | None = None) -> None:
        """Bind a pod to a node."""
        metadata = pod["metadata"]
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata["name"], "uid": metadata["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node or self.node},
        }
        self._api.request("POST", self._api.path("pods", metadata["name"], metadata["namespace"], "binding"), binding)

    def unschedulable(self, pod: Pod, message: str = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.") -> None:
        """Report that no node has room for a pod."""
        condition = {**_condition("PodScheduled", "False"), "reason": "Unschedulable", "message": message}
        self._set_status(pod, {"phase": "Pending", "conditions": [condition]})

    # The kubelet

    def start(self, pod: Pod, *, ready: bool = True, version: str | None = None) -> None:
        """Run all containers of a pod; at the address of trainer 0 a fake trainer answers.

        Raises ApiError if the pod is no longer at `version`, if that is given.
        """
        metadata, uid = pod["metadata"], pod["metadata"]["uid"]
        address = self._addresses.get(uid) or self._address()
        self._addresses[uid] = address
        if label(pod, ROLE_LABEL) == "trainer" and label(pod, INDEX_LABEL) == "0" and uid not in self._fakes:
            self._fakes[uid] = self._trainers.open(address, label(pod, RUN_LABEL))
        began = {"running": {"startedAt": now()}}
        prepared = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now(), "finishedAt": now()}}
        status = {
            "phase": "Running",
            "startTime": metadata["creationTimestamp"],
            "hostIP": "127.0.0.1",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": _conditions(ready=ready),
            "initContainerStatuses": [
                _container(spec, prepared, ready=True) for spec in pod["spec"].get("initContainers", [])
            ],
            "containerStatuses": [_container(spec, began, ready=ready) for spec in pod["spec"]["containers"]],
        }
        self._set_status(pod, status, version)

    def image_error(self, pod: Pod, reason: str = "ImagePullBackOff") -> None:
        """Schedule a pod whose image cannot be pulled."""
        if not pod["spec"].get("nodeName"):
            try:
                self.schedule(pod)
            except ApiError as error:
                # It may have been scheduled automatically in the meantime.
                if error.code != 409:
                    raise
        image = pod["spec"]["containers"][0]["image"]
        waiting = {"waiting": {"reason": reason, "message": f'Back-off pulling image "{image}"'}}
        statuses = [_container(spec, waiting, ready=False) for spec in pod["spec"]["containers"]]
        self._set_status(
            pod, {"phase": "Pending", "conditions": _conditions(ready=False), "containerStatuses": statuses}
        )

    def finish(self, pod: Pod, exit_code: int, reason: str | None = None, message: str = "") -> None:
        """End the containers of a pod with an exit code."""
        self._silence(pod)
        ended = {
            "terminated": {
                "exitCode": exit_code,
                "reason": reason or ("Completed" if exit_code == 0 else "Error"),
                "message": message,
                "startedAt": pod["metadata"]["creationTimestamp"],
                "finishedAt": now(),
            }
        }
        status = {
            "phase": "Succeeded" if exit_code == 0 else "Failed",
            "conditions": _conditions(ready=False),
            "containerStatuses": [_container(spec, ended, ready=False) for spec in pod["spec"]["containers"]],
        }
        self._set_status(pod, status)

    def write_log(self, pod: Pod, container: str, log: str) -> None:
        """What the API server returns as the log of a container of this pod, or of a later one of its name."""
        place = "/".join(pod["metadata"][key] for key in ("namespace", "name"))
        self._kubelet.pages[f"/containerLogs/{place}/{container}"] = lambda: log

    def run_out_of_memory(self, pod: Pod) -> None:
        """End a pod as if the kernel had killed its container at the memory limit."""
        self.finish(pod, 137, "OOMKilled")

    def evict(self, pod: Pod, message: str = "The node was low on resource: memory.") -> None:
        """Evict a pod, as the kubelet of a node without memory does."""
        self._silence(pod)
        self._set_status(pod, {"phase": "Failed", "reason": "Evicted", "message": message})

    def remove(self, pod: Pod) -> None:
        """Complete the deletion of a pod: its containers end, and it is removed."""
        metadata = pod["metadata"]
        if pod.get("status", {}).get("phase") == "Running":
            self.finish(pod, 143)
        self._silence(pod)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
        try:
            path = self._api.path("pods", metadata["name"], metadata["namespace"])
            self._api.request("DELETE", path, options)
        except ApiError as error:
            if error.code not in (404, 409):
                raise

    def trainer(self, pod: Pod) -> FakeTrainer:
        """The fake trainer of a pod."""
        return self._fakes[pod["metadata"]["uid"]]

    # Nodes

    def add_node(self, name: str) -> str:
        """Add a node that is ready and sends heartbeats."""
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        self._api.create(node)
        self.find_node(name)
        return name

    def lose_node(self, name: str) -> None:
        """Stop a node's heartbeats and its kubelet."""
        self._nodes.discard(name)

    def find_node(self, name: str) -> None:
        """Resume a node's heartbeats: its kubelet removes the pods deleted in the meantime."""
        self._heartbeat(name)
        conditions = [
            {**_condition(kind, status), "reason": "KubeletReady", "lastHeartbeatTime": now()}
            for kind, status in (("Ready", "True"), ("MemoryPressure", "False"), ("DiskPressure", "False"))
        ]
        capacity = {"cpu": "1000", "memory": "1000Gi", "pods": "10000"}
        kubelet = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._kubelet_port}},
        }
        status = {"conditions": conditions, "capacity": capacity, "allocatable": capacity, **kubelet}
        self._api.patch("nodes", name, None, {"status": status}, "status")
        self._nodes.add(name)

    def delete_node(self, name: str) -> None:
        """Remove a node from the cluster."""
        self._nodes.discard(name)
        self._api.delete("nodes", name)

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_SECONDS):
            for name in sorted(self._nodes):
                with contextlib.suppress(OSError, requests.RequestException, ApiError):
                    self._heartbeat(name)

    def _heartbeat(self, name: str) -> None:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": 40,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
        self._api.apply(lease)

    def _address(self) -> str:
        high, low = divmod(next(self._numbers), 250)
        return f"127.{self._network}.{high}.{low + 1}"

    def _silence(self, pod: Pod) -> None:
        self._fakes.pop(pod["metadata"]["uid"], None)
        self._trainers.close(self._addresses.get(pod["metadata"]["uid"], ""))

    def _set_status(self, pod: Pod, status: Body, version: str | None = None) -> None:
        metadata = pod["metadata"]
        # With the uid, so that a later pod of the same name is not changed.
        only = {"uid": metadata["uid"], **({"resourceVersion": version} if version else {})}
        change = {"metadata": only, "status": status}
        self._api.patch("pods", metadata["name"], metadata["namespace"], change, "status")


def _condition(kind: str, status: str) -> Body:
    return {"type": kind, "status": status, "lastTransitionTime": now()}


def _conditions(*, ready: bool) -> list[Body]:
    answer = "True" if ready else "False"
    return [
        _condition("Initialized", "True"),
        _condition("Ready", answer),
        _condition("ContainersReady", answer),
        _condition("PodScheduled", "True"),
    ]


def _container(spec: Mapping[str, Any], state: Body, *, ready: bool) -> Body:
    return {
        "name": spec["name"],
        "image": spec["image"],
        "imageID": "",
        "ready": ready,
        "started": ready,
        "restartCount": 0,
        "state": state,
    }


def gone(api: KubernetesApi, pod: Pod) -> bool:
    """Whether the pod with this uid no longer exists."""
    stored = api.get("pods", pod["metadata"]["name"], pod["metadata"]["namespace"])
    return stored is None or stored["metadata"]["uid"] != pod["metadata"]["uid"]


def wait_until_gone(api: KubernetesApi, pod: Pod, seconds: float = 30.0) -> None:
    """Wait until the pod with this uid no longer exists."""
    wait_for(lambda: gone(api, pod), f"pod {pod['metadata']['name']} is gone", seconds)
