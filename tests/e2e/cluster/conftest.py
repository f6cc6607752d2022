"""Fixtures of tests on a real cluster: the cluster, and runs that are deleted after their test."""

import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.e2e.cluster.applied_runs import ClusterRun, run_manifest
from tests.e2e.cluster.clusters import Cluster, existing_cluster, own_cluster
from tests.e2e.runs import QUICKSTART
from tests.support import REPOSITORY

EXISTING = "SEELE_E2E_KUBECONFIG"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Record for fixtures whether their test has failed."""
    report = yield
    item.stash.setdefault(FAILED, False)
    item.stash[FAILED] |= report.failed
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="module")
def machine() -> Iterator[Path]:
    """A folder for the only cluster on this machine at a time; skips if the machine cannot run one."""
    if reason := os.environ.get("SEELE_SKIP_KUBERNETES"):
        pytest.skip(f"SEELE_SKIP_KUBERNETES: {reason}")
    _clean_up_when_terminated()
    prepared = subprocess.run([REPOSITORY / "tools" / "node.sh"], capture_output=True, text=True)
    if prepared.returncode != 0:
        pytest.skip(f"no containers can be run here: {prepared.stderr.strip()}")
    with (
        tempfile.TemporaryDirectory(prefix="seele-cluster-") as temporary,
        Path(tempfile.gettempdir(), "seele-node.lock").open("w") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)  # there is only one bridge
        yield Path(temporary)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster of one node on this machine, or the one that SEELE_E2E_KUBECONFIG names.

    It is removed after its module, because it would slow down all other tests.
    """
    if (existing := os.environ.get(EXISTING)) and not os.environ.get("SEELE_SKIP_KUBERNETES"):
        _clean_up_when_terminated()
        with (
            tempfile.TemporaryDirectory(prefix="seele-cluster-") as temporary,
            existing_cluster(Path(existing), Path(temporary)) as there,
        ):
            yield there
        return
    with own_cluster(request.getfixturevalue("machine")) as own:
        yield own


@pytest.fixture
def submit(
    cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str, Mapping[str, Any]], ClusterRun]]:
    """Apply the quickstart with another name and changes to its spec; without changes, the file itself."""
    runs: list[ClusterRun] = []

    def apply(name: str, spec: Mapping[str, Any]) -> ClusterRun:
        run = ClusterRun(cluster, name)
        runs.append(run)
        path = QUICKSTART
        if spec:
            path = tmp_path / f"{name}.yaml"
            path.write_text(yaml.safe_dump(run_manifest(name, spec)))
        run.apply(path)
        return run

    yield apply
    if request.node.stash.get(FAILED, False):
        _print_logs(cluster, runs)
    if not cluster.operator.running:
        cluster.operator.start()
    for run in runs:
        run.delete()


@pytest.fixture
def own_node(cluster: Cluster) -> None:
    """For tests that disturb the node."""
    if cluster.node is None:
        pytest.skip(f"kills processes of the node, which is not on this machine: {EXISTING} is set")


def _clean_up_when_terminated() -> None:
    """Clean up after SIGTERM as after Ctrl-C."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _print_logs(cluster: Cluster, runs: list[ClusterRun]) -> None:
    for run in runs:
        print(run.name, run.history, run.describe(), sep="\n")
    print("operator:", cluster.operator.log(), sep="\n")
    if cluster.node is not None:
        for container, text in cluster.node.container_logs():
            print(f"--- {container}", text, sep="\n")
