"""Executes the commands on the pages with the real `seele`, kubectl and Helm, on a real API server.

Pods are simulated (`tests/support/pods_driver.py`), and the operator is a process with the account that the chart created.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from seele_operator.api.yaml_files import read_run_file
from seele_trainer.quickstart.__main__ import Recipe, make
from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane
from tests.support.docs_pages import Block, blocks, commands, pages, shows
from tests.support.operator_process import LEASE_SECONDS, NAMESPACE, SERVICE_ACCOUNT, OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.run_folder import make_run_folder
from tests.support.waiting import wait_for

SECONDS = 120.0
QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"
OWN = {".git", "runs", "problems.jsonl", "run.yaml"}
"""Not linked from the checkout."""
PROGRESS = {
    "steps": 80,
    "reward": 0.55,
    "accuracy": 0.582,
    "hintRate": 0.63,
    "etaSeconds": 120.0,
    "lastCheckpointStep": 20,
}
"""What the simulated trainer of the quickstart reports at step 22."""


@dataclass
class Checkout:
    """A writable folder that looks like the checkout, with a user's run.yaml and runs/first in it."""

    folder: Path
    environment: dict[str, str]
    installed: set[str] = field(default_factory=set)
    """Text of the blocks that set the cluster up; Helm would refuse to repeat them on another page."""

    def execute(self, block: Block) -> None:
        """Run a block, and compare its output with what the page shows."""
        *before, last = commands(block)
        for command in before:
            self.run(block, command.text, command.output)
        self.run(block, last.text, last.output, block.exit_code)

    def run(self, block: Block, text: str, shown: str | None, exit_code: int = 0) -> None:
        """Run one command."""
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
        if ran.returncode != exit_code:
            raise AssertionError(f"{block.place}: {text}\nended with {ran.returncode}:\n{ran.stdout}")
        if shown is not None and not shows(shown, ran.stdout):
            raise AssertionError(f"{block.place}: {text}\nprinted something other than the page shows:\n{ran.stdout}")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    folder = tmp_path_factory.mktemp("docs") / "seele"
    folder.mkdir()
    for path in REPOSITORY.iterdir():
        if path.name not in OWN:
            (folder / path.name).symlink_to(path)
    make(folder / ".cache" / "quickstart", Recipe())
    (folder / "run.yaml").write_text(QUICKSTART.read_text())
    make_run_folder(folder / "runs" / "first", steps=60)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "120", "NO_COLOR": "1"}
    return Checkout(folder, environment)


@dataclass(frozen=True)
class Cluster:
    """A control plane with everything that the README installs, where the quickstart is training."""

    plane: ControlPlane
    driver: PodsDriver

    def train(self) -> None:
        """Bring the quickstart to step 22, whatever was done to it before."""
        if self.plane.admin.get("seeleruns", "quickstart", "default") is None:
            self.plane.admin.create(read_run_file(QUICKSTART), "default")
        self._until("Running")
        (trainer,) = self.plane.admin.list("pods", "default", "seele.dev/role=trainer")
        self.driver.trainer(trainer).at(22, **PROGRESS)
        wait_for(lambda: self._status().get("step") == 22, "the operator has polled the trainer", SECONDS)

    def _until(self, phase: str) -> None:
        wait_for(lambda: self._status().get("phase") == phase, lambda: f"{phase}: {self._status()}", SECONDS)

    def _status(self) -> dict[str, object]:
        return (self.plane.admin.get("seeleruns", "quickstart", "default") or {}).get("status") or {}


@pytest.fixture(scope="module")
def cluster(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An empty cluster, on which the README's commands are then executed."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    folder = tmp_path_factory.mktemp("docs-cluster")
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(folder))
        checkout.environment |= {"KUBECONFIG": str(plane.admin_kubeconfig), "PATH": _tools(plane, folder, checkout)}
        driver = stack.enter_context(PodsDriver(plane.admin))
        for block in blocks("README.md"):
            if block.where != "on a cluster":
                continue
            checkout.installed.add(block.text)
            for command in commands(block):
                checkout.run(block, command.text, command.output)
                if "helm install" in command.text:
                    stack.enter_context(_operator(plane, folder))
        yield Cluster(plane, driver)


def _tools(plane: ControlPlane, folder: Path, checkout: Checkout) -> str:
    """A PATH with kubectl and helm on it."""
    helm = subprocess.run([REPOSITORY / "tools" / "helm.sh"], stdout=subprocess.PIPE, text=True)
    assert helm.returncode == 0, "tools/helm.sh found no helm; its output above says why"
    tools = folder / "tools"
    tools.mkdir()
    (tools / "helm").symlink_to(helm.stdout.strip())
    (tools / "kubectl").symlink_to(plane.binaries / "kubectl")
    return f"{tools}{os.pathsep}{checkout.environment['PATH']}"


def _operator(plane: ControlPlane, folder: Path) -> OperatorProcess:
    """What the Deployment would run if the cluster had nodes: the operator with the account that the chart created."""
    token = plane.service_account_token(SERVICE_ACCOUNT, NAMESPACE)
    account = plane.kubeconfig("chart", token, NAMESPACE)
    return OperatorProcess(account, folder / "operator.log", f"--lease-duration={LEASE_SECONDS}")


@pytest.mark.parametrize("page", [page for page in pages() if any(block.where or block.file for block in blocks(page))])
def test_commands_print_what_their_page_shows(page: str, checkout: Checkout, request: pytest.FixtureRequest) -> None:
    here = [block for block in blocks(page) if block.where or block.file]
    if any(block.where == "on a cluster" for block in here):
        found: Cluster = request.getfixturevalue("cluster")
        found.train()
    for block in here:
        if block.file:
            file = checkout.folder / block.file
            assert file.parent.resolve() == checkout.folder.resolve(), f"{block.place}: {file} is outside the copy"
            file.write_text(block.text)
        elif block.text not in checkout.installed:
            checkout.execute(block)


def test_wrong_output_and_failures_are_reported(checkout: Checkout) -> None:
    good = Block("p.md", 1, "console", "$ echo one two\none …\n", "run here")
    checkout.execute(good)

    with pytest.raises(AssertionError, match=r"p\.md:1: echo one\nprinted something other than the page shows:\none"):
        checkout.execute(Block("p.md", 1, "console", "$ echo one\ntwo\n", "run here"))
    with pytest.raises(AssertionError, match="ended with 1"):
        checkout.execute(Block("p.md", 1, "console", "false | cat\n", "run here"))
    checkout.execute(Block("p.md", 1, "console", "exit 2\n", "run here, exit code 2"))
