"""A real Kubernetes control plane for tests: etcd, kube-apiserver and kube-controller-manager, without nodes.

`with ControlPlane(folder) as plane:` is ready in about five seconds.
`python -m tests.support.control_plane` starts one for experiments.
"""

import ctypes
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import requests
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support import REPOSITORY
from tests.support.kubernetes_api import ApiError, Body, KubernetesApi
from tests.support.waiting import wait_for

START_SECONDS = 60.0
STOP_SECONDS = 10.0
NODE_LOST_SECONDS = 6
"""Silence after which a node counts as lost; on a busy machine the tests' heartbeats are late."""
EVICTION_SECONDS = 2
"""Time from the loss of a node to the eviction of its pods."""

CONTROLLERS = (
    "garbagecollector",
    "namespace",
    "endpoint",
    "disruption",
    "podgc",
    "nodelifecycle",
    "resourcequota",
    "serviceaccount",
    "clusterrole-aggregation",
)
TAINT_EVICTION = "taint-eviction-controller"
"""Part of nodelifecycle before 1.29."""

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}],
}


class KubernetesMissing(Exception):
    """Kubernetes' binaries could not be found, downloaded or built."""


def kubernetes_binaries(*more: str) -> Path:
    """Folder with etcd, kube-apiserver, kube-controller-manager, kubectl, and `more`. Raises KubernetesMissing."""
    # Its messages about downloads and builds go to the terminal.
    found = subprocess.run([REPOSITORY / "tools" / "kubernetes.sh", *more], stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        raise KubernetesMissing("tools/kubernetes.sh found no Kubernetes; it says why above")
    return Path(found.stdout.strip())


def die_with_parent() -> None:
    """In a new child process: be killed when the test process ends, for whatever reason."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_port(address: str = "127.0.0.1") -> int:
    """A free TCP port."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        return int(listener.getsockname()[1])


def write_kubeconfig(path: Path, cluster: Body, user: Body, namespace: str = "default") -> Path:
    """Write a kubeconfig file with a single context."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "tests", "cluster": cluster}],
        "users": [{"name": "tests", "user": user}],
        "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests", "namespace": namespace}}],
        "current-context": "tests",
    }
    path.write_text(yaml.safe_dump(content))
    return path


class ControlPlane(AbstractContextManager["ControlPlane"]):
    """A control plane with all its files in `folder`. `admin` has all permissions."""

    url: str
    admin: KubernetesApi
    version: tuple[int, int]
    """Such as (1, 20)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.binaries = kubernetes_binaries()
        self.certificate_authority = folder / "certificates" / "apiserver.crt"
        self._admin_token = secrets.token_hex(16)
        self._api_port = free_port()
        self._etcd_port = free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._starts: list[tuple[datetime, datetime]] = []
        self.url = f"https://127.0.0.1:{self._api_port}"

    def __enter__(self) -> Self:
        try:
            self._write_files()
            self._start_etcd()
            self.start_api_server()
            self.admin = KubernetesApi(self.url, self._admin_token, self.certificate_authority)
            self.start_controller_manager()
            wait_for(
                lambda: (
                    self._running("kube-controller-manager") and self.admin.get("serviceaccounts", "default", "default")
                ),
                lambda: f"the controller manager makes a service account\n{self.log('kube-controller-manager')}",
                START_SECONDS,
            )
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything that runs."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._kill(name)

    def start_api_server(self) -> None:
        """Start kube-apiserver, always on the same port, and wait until it is ready."""
        began = datetime.now(UTC)
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            *("--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={self._api_port}"),
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.folder / 'service-accounts.key'}",
            f"--service-account-signing-key-file={self.folder / 'service-accounts.key'}",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--endpoint-reconciler-type=none",
            "--allow-privileged=true",
            f"--default-not-ready-toleration-seconds={EVICTION_SECONDS}",
            f"--default-unreachable-toleration-seconds={EVICTION_SECONDS}",
            f"--audit-policy-file={self.folder / 'audit-policy.yaml'}",
            f"--audit-log-path={self.folder / 'audit.log'}",
            "--profiling=false",
        )
        wait_for(self._api_ready, lambda: f"the API server is ready\n{self.log('kube-apiserver')}", START_SECONDS)
        self._starts.append((began, datetime.now(UTC)))

    def was_starting(self, moment: datetime) -> bool:
        """Whether the API server was starting then: until it has read all roles, it denies what they grant."""
        return any(began <= moment <= ready for began, ready in self._starts)

    def stop_api_server(self) -> None:
        """Kill kube-apiserver; its data is kept."""
        self._kill("kube-apiserver")

    def start_controller_manager(self) -> None:
        """Start kube-controller-manager with the controllers that matter to runs."""
        self.version = self._version()
        if self.version < (1, 21):
            self.admin.groups["poddisruptionbudgets"] = "apis/policy/v1beta1"
        old = self.version < (1, 24)
        controllers = CONTROLLERS if self.version < (1, 29) else (*CONTROLLERS, TAINT_EVICTION)
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig('admin', self._admin_token)}",
            f"--controllers={','.join(controllers)}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.key'}",
            f"--root-ca-file={self.certificate_authority}",
            *("--leader-elect=false", "--secure-port=0", "--bind-address=127.0.0.1"),
            *(["--port=0"] if old else []),
            f"--node-monitor-grace-period={NODE_LOST_SECONDS}s",
            *("--node-monitor-period=1s", "--node-startup-grace-period=5s"),
            *("--kube-api-qps=200", "--kube-api-burst=400", "--concurrent-gc-syncs=20"),
        )

    def stop_controller_manager(self) -> None:
        """Kill kube-controller-manager, so that nothing is collected or evicted."""
        self._kill("kube-controller-manager")

    def kubeconfig(self, name: str, token: str, namespace: str = "default") -> Path:
        """Write a kubeconfig file for the user `name` with `token`."""
        cluster = {"server": self.url, "certificate-authority": str(self.certificate_authority)}
        return write_kubeconfig(self.folder / f"{name}.kubeconfig", cluster, {"token": token}, namespace)

    @property
    def admin_kubeconfig(self) -> Path:
        """A kubeconfig file with all permissions."""
        return self.kubeconfig("admin", self._admin_token)

    def service_account_token(self, name: str, namespace: str) -> str:
        """A token of a service account, like that of its pods."""
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": 86400},
        }
        answer = self.admin.request("POST", self.admin.path("serviceaccounts", name, namespace, "token"), request)
        return str(answer["status"]["token"])

    def namespace(self, name: str | None = None) -> str:
        """Create a namespace, and wait until pods can be created in it."""
        name = name or f"test-{secrets.token_hex(4)}"
        self.admin.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        wait_for(lambda: self.admin.get("serviceaccounts", "default", name), f"namespace {name} has a service account")
        return name

    def install(self, definition: dict[str, Any]) -> None:
        """Install a CustomResourceDefinition, and wait until it is served and its objects' children are collected."""
        name = definition["metadata"]["name"]
        self.admin.create(definition)

        def established() -> bool:
            stored = self.admin.get("customresourcedefinitions", name) or {}
            conditions = (stored.get("status") or {}).get("conditions") or []
            return any(condition["type"] == "Established" and condition["status"] == "True" for condition in conditions)

        wait_for(established, f"{name} is served")
        plural, group = name.split(".", 1)
        version = definition["spec"]["versions"][0]["name"]
        wait_for(lambda: self._answers(f"apis/{group}/{version}/{plural}"), f"{name} answers")
        # The garbage collector discovers new kinds of owners only at its start and every 30 s.
        self.stop_controller_manager()
        self.start_controller_manager()

    def audit(self) -> list[dict[str, Any]]:
        """The requests of service accounts to the API server, oldest first."""
        path = self.folder / "audit.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def log(self, name: str) -> str:
        """The last lines of a process's log."""
        path = self.folder / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:]) if path.exists() else ""

    def _write_files(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "tokens.csv").write_text(f'{self._admin_token},admin,admin,"system:masters"\n')
        (self.folder / "audit-policy.yaml").write_text(yaml.safe_dump(AUDIT_POLICY))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "service-accounts.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
        )

    def _start_etcd(self) -> None:
        peer = free_port()
        self._start(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--advertise-client-urls=http://127.0.0.1:{self._etcd_port}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
        )

    def _start(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [self.binaries / name, *flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ.get("PATH", ""), "HOME": str(self.folder), "ETCD_UNSUPPORTED_ARCH": "arm64"},
                start_new_session=True,  # Ctrl-C ends the tests, and they end this
                preexec_fn=die_with_parent,
            )

    def _running(self, name: str) -> bool:
        code = self._processes[name].poll()
        if code is not None:
            raise AssertionError(f"{name} ended with code {code}\n{self.log(name)}")
        return True

    def _kill(self, name: str) -> None:
        process = self._processes.pop(name, None)
        if process is None:
            return
        process.kill()
        process.wait(STOP_SECONDS)

    def _api_ready(self) -> bool:
        self._running("etcd")
        self._running("kube-apiserver")
        try:
            api = KubernetesApi(self.url, self._admin_token, self.certificate_authority)
            return api.request("GET", "readyz")["text"] == "ok"
        except (OSError, requests.RequestException, ApiError):
            return False

    def _answers(self, path: str) -> bool:
        try:
            self.admin.request("GET", path)
        except ApiError as error:
            if error.code in (404, 503):
                return False
            raise
        return True

    def _version(self) -> tuple[int, int]:
        # The fields `major` and `minor` are empty in some builds.
        found = re.match(r"v(\d+)\.(\d+)", self.admin.request("GET", "version")["gitVersion"])
        assert found is not None
        return int(found[1]), int(found[2])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="seele-control-plane-") as temporary:
        began = time.monotonic()
        with ControlPlane(Path(temporary)) as plane:
            print(f"up in {time.monotonic() - began:.1f} s; Ctrl-C ends it")
            print(f"export KUBECONFIG={plane.admin_kubeconfig}", flush=True)
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
