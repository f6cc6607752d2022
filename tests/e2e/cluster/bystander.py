"""A second node that exists only in the API: Kubernetes does not evict pods while all nodes are lost."""

import datetime
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.kubernetes_api import KubernetesApi

NAME = "bystander"
HEARTBEAT_SECONDS = 2.0


@contextmanager
def bystander(api: KubernetesApi) -> Iterator[None]:
    """A ready node that accepts no pods."""
    done = threading.Event()
    spec = {"unschedulable": True, "taints": [{"key": "seele.dev/bystander", "effect": "NoExecute"}]}
    api.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}, "spec": spec})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": _now()}
    api.patch("nodes", NAME, None, {"status": {"conditions": [ready]}}, "status")
    _beat(api)
    heart = threading.Thread(target=_beat_until, args=(api, done), daemon=True)
    heart.start()
    try:
        yield
    finally:
        done.set()
        heart.join()
        api.delete("nodes", NAME)


def _beat_until(api: KubernetesApi, done: threading.Event) -> None:
    while not done.wait(HEARTBEAT_SECONDS):
        _beat(api)


def _beat(api: KubernetesApi) -> None:
    lease = {"holderIdentity": NAME, "leaseDurationSeconds": 40, "renewTime": _now("microseconds")}
    metadata = {"name": NAME, "namespace": "kube-node-lease"}
    api.apply({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": lease})


def _now(precision: str = "seconds") -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=precision).replace("+00:00", "Z")
