"""The image for GPUs can use every tracker: each is imported with only those packages that its requirements bring."""

import json
import re
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support import REPOSITORY
from tools import requirements

IMPORTS = {
    "TensorBoard": "from torch.utils.tensorboard import SummaryWriter",
    "Weights & Biases": "import wandb; wandb.init, wandb.Settings",
    "MLflow": "from mlflow.tracking import MlflowClient; from mlflow.entities import Metric; import mlflow",
}
"""By tracker, the imports of telemetry/trackers.py."""

HIDDEN = """
import json, sys
hidden = set(json.loads(sys.argv[1]))
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
exec(sys.argv[2])
"""


def image_packages() -> set[str]:
    """The distributions that pip installs for trainer.txt, with what they require, as far as they are installed here."""
    (extras,) = re.findall(
        r"requirements\.py wanted (trainer[\w ]*); } >trainer\.txt", (REPOSITORY / "Dockerfile").read_text()
    )
    project = (REPOSITORY / "pyproject.toml").read_text()
    found: set[tuple[str, str]] = set()
    waiting = [Requirement(line) for line in requirements.wanted(project, extras.split())]
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            key = canonicalize_name(wanted.name), extra
            if key in found:
                continue
            try:
                required = metadata.distribution(wanted.name).requires or []
            except metadata.PackageNotFoundError:
                continue
            found.add(key)
            inner = map(Requirement, required)
            waiting += [one for one in inner if one.marker is None or one.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


@pytest.fixture(scope="module")
def hidden_modules() -> list[str]:
    """Top-level modules that are installed here and not in the image."""
    kept = {*image_packages(), "seele"}
    modules = metadata.packages_distributions()
    return [module for module, names in modules.items() if not kept & {canonicalize_name(name) for name in names}]


@pytest.mark.parametrize("tracker", IMPORTS)
def test_a_tracker_can_be_imported_in_the_image_for_gpus(tracker: str, hidden_modules: list[str]) -> None:
    assert {"pytest", "vllm"} <= set(hidden_modules)
    command = [sys.executable, "-c", HIDDEN, json.dumps(hidden_modules), IMPORTS[tracker]]
    imported = subprocess.run(command, capture_output=True, text=True, check=False)

    assert imported.returncode == 0, imported.stderr[-2000:]
