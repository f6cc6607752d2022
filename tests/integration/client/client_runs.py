"""A namespace of a real API server, as the user of `seele` and as the operator see it."""

from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner, Result

from seele_operator.cli import app
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import KubernetesApi
from tests.support.spec_data import small_run

Body = dict[str, Any]
POD_SPEC: Body = {"containers": [{"name": "trainer", "image": "seele:1"}], "automountServiceAccountToken": False}


def shared_run(**spec: object) -> Body:
    """A small run that a cluster can carry out: its pods share a folder."""
    body = small_run()
    body["spec"] |= {"storage": {"run": {"hostPath": {"path": "/data/small"}}}, **spec}
    return body


class Cluster:
    """A namespace of the control plane, as the user of `seele` and as the operator see it."""

    def __init__(self, plane: ControlPlane, folder: Path):
        self.plane = plane
        self.api: KubernetesApi = plane.admin
        self.namespace = plane.namespace()
        self.folder = folder

    def seele(self, *words: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, [*words, "-n", self.namespace], input=answer)

    def file(self, **spec: object) -> str:
        return self.write(shared_run(**spec))

    def write(self, body: Body) -> str:
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(body))
        return str(path)

    def submit(self, **spec: object) -> Body:
        result = self.seele("submit", "-f", self.file(**spec))
        assert result.exit_code == 0, result.stderr
        return self.run()

    def run(self, name: str = "small") -> Body:
        found = self.api.get("seeleruns", name, self.namespace)
        assert found is not None
        return found

    def set_status(self, phase: str, **more: object) -> None:
        """What the operator would write about the run as it is now."""
        generation = self.run()["metadata"]["generation"]
        status = {"phase": phase, "observedGeneration": generation, **more}
        self.api.patch("seeleruns", "small", self.namespace, {"status": status}, "status")
