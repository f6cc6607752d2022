"""A real API server accepts every example from kubectl, and every child object of an example."""

import subprocess

from seele_operator.plan.objects import ClusterFeatures, plan
from seele_operator.validation.load import load_run
from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import plural

FOLDER = REPOSITORY / "manifests" / "examples"


def test_every_example_and_its_child_objects_are_accepted(control_plane: ControlPlane) -> None:
    namespace = control_plane.namespace()
    runs = {path: load_run(path) for path in sorted(FOLDER.glob("*.yaml"))}

    access = (f"--kubeconfig={control_plane.admin_kubeconfig}", f"--namespace={namespace}")
    applied = subprocess.run(
        [control_plane.binaries / "kubectl", *access, "apply", "--dry-run=server", f"--filename={FOLDER}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert applied.returncode == 0, applied.stderr
    assert sorted(applied.stdout.splitlines()) == sorted(
        f"seelerun.seele.dev/{run.metadata.name} created (server dry run)" for run in runs.values()
    )

    cluster = ClusterFeatures("policy/v1" if control_plane.version >= (1, 21) else "policy/v1beta1")
    for run in runs.values():
        for manifest in plan(run, 1, cluster):
            version = manifest["apiVersion"]
            root = f"apis/{version}" if "/" in version else f"api/{version}"
            path = f"{root}/namespaces/{namespace}/{plural(manifest['kind'])}"
            here = {**manifest, "metadata": {**manifest["metadata"], "namespace": namespace}}
            control_plane.admin.request("POST", path, here, dryRun="All")
