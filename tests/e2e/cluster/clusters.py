"""A cluster of one node on this machine, with the CRD and the operator's account; or an existing cluster."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Protocol

import requests

from seele_operator.validation.crd import crd
from tests.e2e.cluster.cluster_dns import ClusterDns
from tests.e2e.cluster.single_node import ADDRESS, CHECKOUT, IMAGES, NAME, Node
from tests.support.control_plane import ControlPlane, die_with_parent, free_port, kubernetes_binaries
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.operator_process import NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from tests.support.waiting import wait_for

NODE_SILENCE_SECONDS = 20
"""Silence after which the node counts as lost; long, since heartbeats are late on a busy machine."""
LEASE_SECONDS = 5


class NodeControlPlane(ControlPlane):
    """A control plane for a real node, with a scheduler and longer timeouts."""

    _MORE: ClassVar = {
        "kube-apiserver": ("--kubelet-preferred-address-types=InternalIP",),
        "kube-controller-manager": (
            f"--node-monitor-grace-period={NODE_SILENCE_SECONDS}s",
            # For an operator in a Deployment with the token of its account; in addition to the other controllers.
            "--controllers=deployment,replicaset,serviceaccount-token,root-ca-cert-publisher",
        ),
    }

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.node_binaries = kubernetes_binaries("kubelet", "kube-scheduler")

    def start_controller_manager(self) -> None:
        super().start_controller_manager()
        scheduler = [self.node_binaries / "kube-scheduler", f"--kubeconfig={self.admin_kubeconfig}"]
        scheduler += ["--leader-elect=false", f"--secure-port={free_port()}", "--bind-address=127.0.0.1"]
        scheduler += ["--port=0"] if self.version < (1, 24) else []
        with (self.folder / "kube-scheduler.log").open("ab") as log:
            self._scheduler = subprocess.Popen(
                scheduler, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
            )

    def stop(self) -> None:
        if hasattr(self, "_scheduler"):
            self._scheduler.kill()
            self._scheduler.wait()
        super().stop()

    def _start(self, name: str, *flags: str) -> None:
        super()._start(name, *flags, *self._MORE.get(name, ()))  # the last one counts


class Operator(Protocol):
    """The operator of a cluster, a process or a pod."""

    @property
    def running(self) -> bool:
        """Whether it is running."""

    def start(self) -> None:
        """Start it again and wait until it is ready."""

    def log(self) -> str:
        """The end of its log."""


class Cluster:
    """A cluster in which SeeleRuns train. `node` may be disturbed; it is None for an existing cluster."""

    def __init__(
        self,
        folder: Path,
        api: KubernetesApi,
        kubeconfig: Path,
        kubectl: Path,
        operator: Operator,
        node: Node | None,
    ) -> None:
        self._folder = folder
        self.api = api
        self.operator = operator
        self.node = node
        self._kubeconfig = f"--kubeconfig={kubeconfig}"
        self._kubectl = [str(kubectl), self._kubeconfig]

    def kubectl(self, *arguments: str) -> str:
        """Output of kubectl. Raises AssertionError with its message if it fails."""
        done = subprocess.run([*self._kubectl, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def copy_of(self, path: str, name: str) -> Path:
        """A copy of a folder of the node, made through a pod with this name."""
        mount = {"name": "folder", "mountPath": "/folder", "readOnly": True}
        reader = {"name": "reader", "image": IMAGES[0], "command": ["sleep", "infinity"], "volumeMounts": [mount]}
        reader |= {"imagePullPolicy": "IfNotPresent", "securityContext": {"runAsUser": 0}}
        volume = {"name": "folder", "hostPath": {"path": path}}
        spec = {"containers": [reader], "volumes": [volume], "automountServiceAccountToken": False}
        self.api.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
        try:
            self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
            self.kubectl("cp", f"{name}:/folder", str(self._folder / name))
        finally:
            self.api.delete("pods", name, "default", grace=0)
        return self._folder / name

    def seele(self, *arguments: str) -> str:
        """Output of a `seele` command. Raises AssertionError with its message if it fails."""
        command = [sys.executable, "-m", "seele_operator.cli", *arguments, self._kubeconfig]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, f"seele {' '.join(arguments)}: {done.stderr}"
        return done.stdout


@contextmanager
def bare_cluster(folder: Path) -> Iterator[tuple[NodeControlPlane, Node]]:
    """A cluster of one node on this machine without Seele, which is removed completely at the end."""
    with ExitStack() as stack:
        plane = stack.enter_context(NodeControlPlane(folder / "control-plane"))
        node = Node(folder / "node", plane.node_binaries, plane.admin_kubeconfig)
        stack.callback(node.close)
        node.start()
        resolver_api = KubernetesApi(plane.url, plane._admin_token, plane.certificate_authority)
        dns = ClusterDns(ADDRESS, lambda namespace, service: resolver_api.get("endpoints", service, namespace))
        stack.callback(dns.stop)
        dns.start()
        node.start_kubelet()
        wait_for(lambda: node_ready(plane.admin), lambda: f"the node is ready\n{node.log('kubelet')}", 90)
        yield plane, node


@contextmanager
def own_cluster(folder: Path) -> Iterator[Cluster]:
    """The same with the CRD and the operator's account, and with the operator as a process of this machine."""
    with bare_cluster(folder) as (plane, node), ExitStack() as stack:
        kubectl = plane.node_binaries / "kubectl"
        yield from _with_operator(stack, folder, plane.admin, plane.admin_kubeconfig, kubectl, node)


@contextmanager
def existing_cluster(kubeconfig: Path, folder: Path) -> Iterator[Cluster]:
    """The cluster of a kubeconfig file, through `kubectl proxy`.

    Its node must have the image ghcr.io/seele-dev/seele:0.1.0-cpu, and its pods must be reachable from this machine, where the
    operator runs and asks trainers for their progress.
    """
    with ExitStack() as stack:
        kubectl = kubernetes_binaries() / "kubectl"
        port = free_port()
        proxy = subprocess.Popen([kubectl, f"--kubeconfig={kubeconfig}", "proxy", f"--port={port}"])
        stack.callback(proxy.wait)
        stack.callback(proxy.terminate)
        api = KubernetesApi(f"http://127.0.0.1:{port}", "", Path("unused"))
        wait_for(lambda: _answers(api), f"the cluster of {kubeconfig} answers")
        yield from _with_operator(stack, folder, api, kubeconfig, kubectl, None)


def _with_operator(
    stack: ExitStack, folder: Path, api: KubernetesApi, kubeconfig: Path, kubectl: Path, node: Node | None
) -> Iterator[Cluster]:
    own = folder / "operator.kubeconfig"
    operator = OperatorProcess(own, folder / "operator.log", f"--lease-duration={LEASE_SECONDS}")
    cluster = Cluster(folder, api, kubeconfig, kubectl, operator, node)
    (folder / "crd.json").write_text(json.dumps(crd()))
    # Servers before 1.25 do not know CEL rules, which kubectl would refuse by their schema.
    cluster.kubectl("apply", "--validate=false", "-f", str(folder / "crd.json"))
    if api.get("namespaces", NAMESPACE) is None:
        cluster.kubectl("create", "namespace", NAMESPACE)
    cluster.kubectl("apply", "-f", str(CHECKOUT / "manifests" / "rbac.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", "crd/seeleruns.seele.dev", "--timeout=60s")
    _write_operator_kubeconfig(cluster, own)
    with operator:
        yield cluster


def _write_operator_kubeconfig(cluster: Cluster, path: Path) -> None:
    """A kubeconfig with the token of the operator's service account, without the administrator's credentials."""
    account = cluster.api.path("serviceaccounts", SERVICE_ACCOUNT, NAMESPACE, "token")
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": 86400},
    }
    token = cluster.api.request("POST", account, request)["status"]["token"]
    view = json.loads(cluster.kubectl("config", "view", "--minify", "--flatten", "--output=json"))
    view["users"] = [{"name": SERVICE_ACCOUNT, "user": {"token": token}}]
    view["contexts"][0]["context"]["user"] = SERVICE_ACCOUNT
    path.touch(mode=0o600)
    path.write_text(json.dumps(view))


def node_ready(api: KubernetesApi) -> bool:
    """Whether the node is ready."""
    node: Body = api.get("nodes", NAME) or {}
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _answers(api: KubernetesApi) -> bool:
    try:
        return bool(api.request("GET", "version"))
    except (ApiError, requests.RequestException):
        time.sleep(0.2)
        return False
