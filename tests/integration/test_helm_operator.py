"""The operator with the chart's arguments, account and permissions."""

import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cluster_runs import ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.helm_chart import CHART, helm, helm_done
from tests.support.operator_process import OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for

# Other tests of this cluster apply manifests/rbac.yaml, whose objects Helm would refuse to adopt.
RELEASE = "seele-operator-chart"


@pytest.fixture(scope="module")
def driver(helm_control_plane: ControlPlane) -> Iterator[PodsDriver]:
    """Simulates the scheduler and the kubelets."""
    with PodsDriver(helm_control_plane.admin) as pods:
        yield pods


@dataclass(frozen=True)
class Installed:
    """The chart in its own namespace, with the operator of its Deployment as a process."""

    plane: ControlPlane
    namespace: str
    operator: OperatorProcess

    def refused(self) -> set[str]:
        """Requests of the account that were forbidden."""
        user = f"system:serviceaccount:{self.namespace}:{RELEASE}"
        return {
            f"{event['verb']} {event['requestURI']}"
            for event in self.plane.audit()
            if event["user"]["username"] == user
            and event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
        }


@contextmanager
def installation(plane: ControlPlane, folder: Path, *flags: str) -> Iterator[Installed]:
    """Install the chart and always uninstall it, because its ClusterRoles can exist only once."""
    namespace = f"seele-{secrets.token_hex(4)}"
    where = (f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={namespace}")
    try:
        # The definition is installed by the fixture, not by Helm.
        helm_done("install", RELEASE, CHART, *where, "--create-namespace", "--set=crds.install=false", *flags)
        deployment = plane.admin.get("deployments", RELEASE, namespace)
        assert deployment is not None
        pod = deployment["spec"]["template"]["spec"]
        command, *arguments = pod["containers"][0]["args"]
        assert command == "operator"
        # The port may be in use on this machine, and only a pod knows its namespace.
        arguments = [argument for argument in arguments if not argument.startswith("--http-port")]
        token = plane.service_account_token(pod["serviceAccountName"], namespace)
        kubeconfig = plane.kubeconfig(namespace, token, namespace)
        log = folder / "operator.log"
        yield Installed(
            plane, namespace, OperatorProcess(kubeconfig, log, *arguments, f"--lease-namespace={namespace}")
        )
    finally:
        helm("uninstall", RELEASE, *where)
        plane.admin.delete("namespaces", namespace)


def restarts_and_ends(runs: ClusterRuns, driver: PodsDriver) -> None:
    """A run trains, loses an attempt, trains on, and ends."""
    runs.running()
    driver.finish(runs.pod("trainer", 1), 1)
    runs.restarted()
    for index in (1, 0):
        driver.finish(runs.pod("trainer", index), 0)
    runs.until("Succeeded")


def test_it_manages_a_run_of_any_namespace(
    helm_control_plane: ControlPlane, driver: PodsDriver, tmp_path: Path
) -> None:
    with installation(helm_control_plane, tmp_path) as installed, installed.operator as operator:
        runs = ClusterRuns(helm_control_plane, driver, operator)
        try:
            restarts_and_ends(runs, driver)
            assert installed.refused() == set()
            assert helm_control_plane.admin.get("leases", RELEASE, installed.namespace) is not None
        finally:
            runs.close()


def test_it_looks_after_the_runs_of_its_namespaces_and_no_others(
    helm_control_plane: ControlPlane, driver: PodsDriver, tmp_path: Path
) -> None:
    mine, elsewhere = helm_control_plane.namespace(), helm_control_plane.namespace()
    other = helm_control_plane.namespace()
    flags = (f"--set=watchNamespaces={{{mine},{other}}}", "--set=rbac.userRoles=false")
    with installation(helm_control_plane, tmp_path, *flags) as installed, installed.operator as operator:
        runs, theirs = (ClusterRuns(helm_control_plane, driver, operator, name) for name in (mine, elsewhere))
        try:
            theirs.make()
            restarts_and_ends(runs, driver)
            assert theirs.status() == {}
            assert installed.refused() == set()
        finally:
            for opened in (runs, theirs):
                opened.close()
            helm_control_plane.admin.delete("namespaces", other)


def test_users_who_can_edit_a_namespace_can_edit_its_runs(helm_control_plane: ControlPlane, tmp_path: Path) -> None:
    namespace = helm_control_plane.namespace()
    admin = helm_control_plane.admin

    def allowed(role: str, verb: str) -> bool:
        asked = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": role,
                "resourceAttributes": {
                    "namespace": namespace,
                    "verb": verb,
                    "group": "seele.dev",
                    "resource": "seeleruns",
                },
            },
        }
        return bool(
            admin.request("POST", "apis/authorization.k8s.io/v1/subjectaccessreviews", asked)["status"]["allowed"]
        )

    with installation(helm_control_plane, tmp_path), ExitStack() as stack:
        stack.callback(admin.delete, "namespaces", namespace)
        for role in ("view", "edit", "admin"):
            binding = {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": namespace},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": role, "apiGroup": "rbac.authorization.k8s.io"}],
            }
            admin.create(binding)
            wait_for(lambda role=role: allowed(role, "list"), f"{role} may list runs")  # type: ignore[misc]
        assert not allowed("view", "create")
        for role in ("edit", "admin"):
            assert all(allowed(role, verb) for verb in ("get", "watch", "create", "update", "patch", "delete"))
