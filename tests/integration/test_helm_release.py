"""A release on a real API server: installed, upgraded and uninstalled by Helm, and what that does to runs."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from seele_operator.validation.crd import crd
from tests.support.cluster_runs import run_body
from tests.support.control_plane import ControlPlane
from tests.support.helm_chart import CHART, RELEASE, Body, helm, helm_done
from tests.support.kubernetes_api import ApiError
from tests.support.waiting import wait_for

NAMESPACE = "seele-helm"
DEFINITION = "seeleruns.seele.dev"


class Release:
    """The chart in a cluster whose only definition of SeeleRun is the chart's."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = plane.admin
        self._where = (f"--kubeconfig={plane.admin_kubeconfig}", f"--namespace={NAMESPACE}")

    def helm(self, command: str, *flags: str | Path, chart: Path = CHART) -> str:
        """Install or upgrade; returns the output."""
        return helm_done(command, RELEASE, chart, *self._where, *flags)

    def refused(self, *flags: str) -> str:
        """Let helm install, in vain; what it says."""
        done = helm("install", RELEASE, CHART, *self._where, *flags)
        assert done.returncode != 0
        return done.stderr

    def uninstall(self) -> None:
        """Uninstall it, if it is installed."""
        helm("uninstall", RELEASE, *self._where)

    def definition(self) -> Body:
        """The definition of SeeleRun. Raises AssertionError if it does not exist."""
        found = self.api.get("customresourcedefinitions", DEFINITION)
        assert found is not None, f"{DEFINITION} is gone"
        return found

    def deployment(self) -> Body | None:
        """The operator's Deployment."""
        return self.api.get("deployments", RELEASE, NAMESPACE)

    def make_run(self) -> Body:
        """Create a run in the release's namespace, as soon as the server accepts runs."""

        def made() -> Body | None:
            try:
                return self.api.create(run_body("run"), NAMESPACE)
            except ApiError as error:
                if error.code == 404:
                    return None
                raise

        return wait_for(made, "the server accepts runs")

    def run(self) -> Body | None:
        """The run, if it still exists."""
        return self.api.get("seeleruns", "run", NAMESPACE)

    def forget_definition(self) -> None:
        """Delete the definition with all runs, and wait until it is gone."""
        self.api.delete("customresourcedefinitions", DEFINITION)
        wait_for(lambda: self.api.get("customresourcedefinitions", DEFINITION) is None, f"{DEFINITION} is gone")


@pytest.fixture(scope="module")
def _emptied(helm_control_plane: ControlPlane) -> Iterator[Release]:
    helm_control_plane.namespace(NAMESPACE)
    release = Release(helm_control_plane)
    yield release
    release.forget_definition()
    # Other tests use their own definition.
    helm_control_plane.install(crd(cel=False))
    helm_control_plane.admin.delete("namespaces", NAMESPACE)


@pytest.fixture
def release(_emptied: Release) -> Iterator[Release]:
    """A cluster without a release, and without a definition of SeeleRun."""
    _emptied.forget_definition()
    yield _emptied
    _emptied.uninstall()


def chart_of_tomorrow(folder: Path) -> Path:
    """The chart with an additional column in the definition."""
    chart = folder / CHART.name
    shutil.copytree(CHART, chart)
    for path in (chart / "files").glob("crd*.yaml"):
        text = path.read_text()
        assert "    additionalPrinterColumns:\n" in text
        column = "    - name: Tomorrow\n      type: string\n      jsonPath: .status.phase\n"
        path.write_text(text.replace("    additionalPrinterColumns:\n", f"    additionalPrinterColumns:\n{column}"))
    return chart


def columns(definition: Body) -> list[str]:
    return [column["name"] for column in definition["spec"]["versions"][0]["additionalPrinterColumns"]]


def test_a_release_is_installed_upgraded_and_uninstalled_and_runs_outlive_it(release: Release, tmp_path: Path) -> None:
    notes = release.helm("install")

    assert f"kubectl -n {NAMESPACE} rollout status deployment/{RELEASE}" in notes
    assert re.search(r"kubectl -n default apply -f https://\S+/v0.1.0/manifests/examples/quickstart.yaml\n", notes)
    assert "seele status" in notes
    rules = "x-kubernetes-validations" in str(release.definition())
    assert rules == (release.plane.version >= (1, 25))
    made = release.make_run()

    release.helm("upgrade", "--set=workers=3", "--set=commonLabels.team=research", chart=chart_of_tomorrow(tmp_path))

    deployment = release.deployment()
    assert deployment is not None
    assert "--workers=3" in deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "Tomorrow" in columns(release.definition())
    now = release.run()
    assert now is not None
    assert now["metadata"]["uid"] == made["metadata"]["uid"]

    release.uninstall()

    assert release.deployment() is None
    assert release.api.get("serviceaccounts", RELEASE, NAMESPACE) is None
    assert release.api.get("clusterroles", RELEASE) is None
    assert columns(release.definition())
    assert release.run() is not None

    # The next installation adopts the definition and reverts the column.
    release.helm("install")

    assert "Tomorrow" not in columns(release.definition())
    assert release.run() is not None


def test_a_definition_that_is_not_kept_is_deleted_with_all_runs(release: Release) -> None:
    release.helm("install", "--set=crds.keep=false")
    release.make_run()

    release.uninstall()

    wait_for(lambda: release.api.get("customresourcedefinitions", DEFINITION) is None, f"{DEFINITION} is gone")


def test_crds_keep_can_be_changed_later(release: Release) -> None:
    release.helm("install", "--set=crds.keep=false")
    release.helm("upgrade", "--set=crds.keep=true")
    # Otherwise an upgrade deletes objects that are no longer rendered.
    release.helm("upgrade", "--set=crds.install=false")
    release.uninstall()

    assert "deletionTimestamp" not in release.definition()["metadata"]


def test_without_a_definition_the_notes_say_so(release: Release) -> None:
    notes = release.helm("install", "--set=crds.install=false", "--set=watchNamespaces={default}")

    assert "SeeleRuns of default" in notes
    assert "the operator waits until you apply one" in notes
    assert release.api.get("customresourcedefinitions", DEFINITION) is None


def test_a_definition_of_kubectls_is_handed_over_as_the_readme_says(release: Release) -> None:
    release.plane.admin.create(crd(cel=False))
    assert "invalid ownership metadata" in release.refused()

    readme = (CHART / "README.md").read_text()
    commands = re.findall(r"^kubectl (?:label|annotate) crd .*$", readme, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        kubectl, *arguments = command.replace("seele-system", NAMESPACE).split()
        subprocess.run(
            [release.plane.binaries / kubectl, f"--kubeconfig={release.plane.admin_kubeconfig}", *arguments],
            check=True,
            capture_output=True,
        )

    release.helm("install")
    assert release.definition()["metadata"]["labels"]["app.kubernetes.io/instance"] == RELEASE
