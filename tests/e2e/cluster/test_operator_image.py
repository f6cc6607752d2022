"""The operator's image, built from the Dockerfile and installed by the chart, runs a training in a real cluster."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cluster.applied_runs import IN_PROCESS, ClusterRun
from tests.e2e.cluster.clusters import Cluster
from tests.e2e.cluster.installed_operator import InstalledOperator, installed_cluster
from tests.support.built_image import BuiltImage, built_image
from tests.support.helm_chart import NAMESPACE, RELEASE
from tests.support.spec_data import patched
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.disturbance, pytest.mark.timeout(1200)]

MAX_PROCESS_BYTES = 150e6
"""Bytes of memory with a few runs."""
SHORT = {"training": {"steps": 4}}


@pytest.fixture(scope="module")
def image() -> BuiltImage:
    """The operator's image."""
    return built_image("operator")


@pytest.fixture(scope="module")
def installed(machine: Path, image: BuiltImage) -> Iterator[tuple[Cluster, InstalledOperator]]:
    """The cluster and its operator."""
    with installed_cluster(machine, image) as found:
        yield found


@pytest.fixture(scope="module")
def cluster(installed: tuple[Cluster, InstalledOperator]) -> Cluster:
    """Replaces the cluster whose operator is a process of this machine."""
    return installed[0]


@pytest.fixture(scope="module")
def operator(installed: tuple[Cluster, InstalledOperator]) -> InstalledOperator:
    """The operator of the chart's Deployment."""
    return installed[1]


def test_the_pod_has_the_image_and_no_files_of_this_machine(image: BuiltImage, operator: InstalledOperator) -> None:
    assert operator.container["image"].startswith("ghcr.io/seele-dev/seele-operator:")
    assert (operator.container["ready"], operator.container["restartCount"]) == (True, 0)
    process = operator.process
    assert set(process.uids()) == {1000}
    assert process.environ()["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    mounts = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
    assert {line.split()[4] for line in mounts if line.split()[4].startswith(("/usr", "/opt"))} == set()
    assert "ro" in next(line.split()[5] for line in mounts if line.split()[4] == "/").split(",")
    # The image has bytecode: none can be written, and without it every start would compile everything.
    found = operator.execute("python3", "-c", "import seele_operator.controller.handlers as it; print(it.__cached__)")
    cached = found.stdout.strip()
    assert cached.startswith("/opt/seele/venv/"), found.stderr
    assert operator.execute("ls", cached).returncode == 0
    healthy = operator.execute(*image.config["Healthcheck"]["Test"][1:])
    assert healthy.returncode == 0, healthy.stderr


def test_the_charts_deployment_completes_a_run(
    submit: Callable[[str, Mapping[str, Any]], ClusterRun], cluster: Cluster, operator: InstalledOperator
) -> None:
    run = submit("installed", patched(IN_PROCESS, SHORT))
    done = run.reach_phase("Succeeded", 400)

    assert (done["step"], done["attempt"], done["restarts"]) == (4, 1, 0)
    assert [step["step"] for step in run.steps()] == [1, 2, 3, 4]
    lease = cluster.api.get("leases", RELEASE, NAMESPACE)
    assert lease is not None
    assert lease["spec"]["holderIdentity"].startswith(operator.pod["metadata"]["name"])
    assert operator.metric("seele_operator_leader") == 1
    wait_for(
        lambda: operator.metric('seele_operator_runs{phase="Succeeded"}') == 1,
        lambda: f"its metrics count the run: {operator.get('/metrics')}",
    )
    # The API server of a busy machine may be slow, but must not refuse requests.
    for reason in ("refused", "internal", "bad_status"):
        assert operator.metric(f'seele_operator_reconcile_errors_total{{reason="{reason}"}}') == 0, reason
    assert "orbidden" not in operator.log()
    assert operator.container["restartCount"] == 0
    memory = operator.process.memory_info().rss
    print(f"the operator in its pod: {memory / 1e6:.0f} MB of memory")
    assert memory <= MAX_PROCESS_BYTES
