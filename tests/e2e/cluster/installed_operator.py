"""The operator as installed by users: the Dockerfile's image in the chart's Deployment."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import requests

from tests.e2e.cluster.applied_runs import processes_of
from tests.e2e.cluster.clusters import Cluster, bare_cluster
from tests.e2e.cluster.service_address import ServiceAddress
from tests.e2e.cluster.single_node import BRIDGE, PLAIN_RUNTIME
from tests.support.built_image import BuiltImage
from tests.support.helm_chart import CHART, NAMESPACE, RELEASE, helm_done
from tests.support.kubernetes_api import Body, KubernetesApi
from tests.support.waiting import wait_for

PORT = 9401
SECONDS = 120


class InstalledOperator:
    """The pod of the chart's Deployment."""

    def __init__(self, api: KubernetesApi, kubectl: Path, kubeconfig: Path) -> None:
        self._api = api
        self._kubectl = [str(kubectl), f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}"]

    @property
    def pod(self) -> Body:
        """The only pod. Raises AssertionError if there is not exactly one."""
        pods = self._api.list("pods", NAMESPACE, f"app.kubernetes.io/instance={RELEASE}")
        assert len(pods) == 1, [pod["metadata"]["name"] for pod in pods]
        return pods[0]

    @property
    def container(self) -> Body:
        """The status of its container."""
        return dict(self.pod["status"]["containerStatuses"][0])

    @property
    def running(self) -> bool:
        """Whether its container runs."""
        return "running" in self.container["state"]

    @property
    def process(self) -> psutil.Process:
        """Its first process on this machine."""
        return min(processes_of(self.pod["metadata"]["name"]), key=lambda process: process.create_time())

    def start(self) -> None:
        """Wait until it is running again."""
        wait_for(lambda: self.running, self.log, SECONDS)

    def log(self) -> str:
        """The end of its log."""
        logs = [*self._kubectl, "logs", f"deployment/{RELEASE}", "--tail=60"]
        done = subprocess.run(logs, capture_output=True, text=True)
        return done.stdout + done.stderr

    def execute(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in its container."""
        execute = [*self._kubectl, "exec", self.pod["metadata"]["name"], "--", *command]
        return subprocess.run(execute, capture_output=True, text=True)

    def get(self, path: str) -> str:
        """Its answer to a request."""
        answer = requests.get(f"http://{self.pod['status']['podIP']}:{PORT}{path}", timeout=10)
        answer.raise_for_status()
        return answer.text

    def metric(self, series: str) -> float | None:
        """The value of a series, written as in /metrics; None if it does not exist."""
        lines = dict(line.rsplit(" ", 1) for line in self.get("/metrics").splitlines() if not line.startswith("#"))
        return float(lines[series]) if series in lines else None


@contextmanager
def installed_cluster(folder: Path, image: BuiltImage) -> Iterator[tuple[Cluster, InstalledOperator]]:
    """A cluster of one node on this machine, with the CRD, permissions and operator of `helm install`."""
    with bare_cluster(folder) as (plane, node), ExitStack() as stack:
        address = ServiceAddress(BRIDGE, int(plane.url.rpartition(":")[2]))
        stack.callback(address.stop)
        address.start()
        node.load_image(image.archive)
        kubeconfig, kubectl = plane.admin_kubeconfig, plane.node_binaries / "kubectl"
        operator = InstalledOperator(plane.admin, kubectl, kubeconfig)
        cluster = Cluster(folder, plane.admin, kubeconfig, kubectl, operator, node)
        runtime = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "handler": PLAIN_RUNTIME}
        plane.admin.apply({**runtime, "metadata": {"name": PLAIN_RUNTIME}})
        where = (f"--kubeconfig={kubeconfig}", f"--namespace={NAMESPACE}")
        values = f"--set=image.pullPolicy=Never,runtimeClassName={PLAIN_RUNTIME}"
        helm_done("install", RELEASE, CHART, *where, "--create-namespace", values)
        wait_for(
            lambda: _available(plane.admin),
            lambda: f"the Deployment is available: {plane.admin.list('pods', NAMESPACE)} {operator.log()}",
            SECONDS,
        )
        yield cluster, operator


def _available(api: KubernetesApi) -> bool:
    deployment = api.get("deployments", RELEASE, NAMESPACE)
    return deployment is not None and bool(deployment["status"].get("availableReplicas"))
