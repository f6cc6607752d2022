"""The operator as a separate process, for tests: started, killed, frozen and queried."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Self

import requests
import yaml

from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane, die_with_parent, free_port
from tests.support.kubernetes_api import ApiError
from tests.support.waiting import wait_for

NAMESPACE = "seele-system"
SERVICE_ACCOUNT = "seele-operator"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
LEASE_SECONDS = 8


def manifests(file: str) -> list[dict[str, Any]]:
    """The objects of a file in manifests/."""
    return [body for body in yaml.safe_load_all((REPOSITORY / "manifests" / file).read_text()) if body]


def grant(plane: ControlPlane, file: str, namespaces: Iterable[str] = (), account: str = SERVICE_ACCOUNT) -> Path:
    """Apply rbac.yaml, or rbac-namespaced.yaml for each of `namespaces`; returns a kubeconfig of the operator's account.

    `account` replaces the account's name in all objects, so that both can be applied side by side.
    """
    if plane.admin.get("namespaces", NAMESPACE) is None:
        plane.namespace(NAMESPACE)
    for body in manifests(file):
        text = yaml.safe_dump(body).replace(SERVICE_ACCOUNT, account)
        if (body["metadata"].get("namespace")) in (None, NAMESPACE):
            plane.admin.apply(yaml.safe_load(text))
            continue
        for namespace in namespaces:
            changed = yaml.safe_load(text)
            changed["metadata"]["namespace"] = namespace
            plane.admin.apply(changed)

    def token() -> str:
        try:
            return plane.service_account_token(account, NAMESPACE)
        except ApiError as error:
            if error.code == 404:
                return ""
            raise

    return plane.kubeconfig(account, wait_for(token, "the operator has a token"), NAMESPACE)


class OperatorProcess(AbstractContextManager["OperatorProcess"]):
    """`seele operator`, with one log file for all its restarts."""

    def __init__(self, kubeconfig: Path, log: Path, *flags: str) -> None:
        self.log_file = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._kubeconfig = kubeconfig
        self._flags = flags
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Process id. Raises AssertionError if it was never started."""
        assert self._process is not None, "the operator was not started"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it is ready, as leader or standby."""
        assert not self.running, "the operator is already running"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "seele_operator.cli", "operator", f"--http-port={self.port}"),
                    *(f"--lease-namespace={NAMESPACE}", *self._flags),
                ],
                env={**os.environ, "KUBECONFIG": str(self._kubeconfig), "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        if wait:
            wait_for(self.ready, lambda: f"the operator is ready\n{self.log()}", START_SECONDS)

    def ready(self) -> bool:
        """Whether /readyz answers 200. Raises AssertionError if the process has ended."""
        assert self.running, f"the operator has ended\n{self.log()}"
        return self.get("/readyz") is not None

    @property
    def leads(self) -> bool:
        """Whether it is the leader."""
        return self.metric("seele_operator_leader") == 1

    def get(self, path: str) -> str | None:
        """The text of its answer on the HTTP port; None without an answer of 200."""
        try:
            answer = requests.get(f"{self.url}{path}", timeout=5)
        except requests.RequestException:
            return None
        return answer.text if answer.status_code == 200 else None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of a metric; 0 without samples."""
        total = 0.0
        for line in wait_for(lambda: self.get("/metrics"), "the operator serves its metrics").splitlines():
            found = re.fullmatch(r"([a-zA-Z_:]+)(?:\{(.*)\})? (\S+)", line)
            if found is None or found[1] != name:
                continue
            given = dict(re.findall(r'(\w+)="([^"]*)"', found[2] or ""))
            if all(given.get(key) == value for key, value in labels.items()):
                total += float(found[3])
        return total

    def kill(self) -> None:
        """Kill it (SIGKILL)."""
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait(STOP_SECONDS)

    def freeze(self) -> None:
        """Suspend the process (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume it after `freeze`."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> int:
        """Stop it as a kubelet does (SIGTERM); returns its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(STOP_SECONDS)

    def log(self, lines: int = 60) -> str:
        """The end of its log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
