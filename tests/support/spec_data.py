"""SeeleRuns for tests of the models, validation and CRD."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from seele_operator.api.yaml_files import read_run_file
from tests.support import REPOSITORY

DATA = REPOSITORY / "tests" / "unit" / "data"
FULL_RUN = DATA / "full_run.yaml"
ABSENT = "<absent>"


def small_run() -> dict[str, Any]:
    """The shortest SeeleRun."""
    return {
        "apiVersion": "seele.dev/v1alpha1",
        "kind": "SeeleRun",
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "Qwen/Qwen2.5-1.5B"}, "dataset": {"path": "train.jsonl"}},
    }


def full_run() -> dict[str, Any]:
    """A SeeleRun with every field."""
    return read_run_file(FULL_RUN)


def patched(body: Any, patch: Any) -> Any:
    """`body` with the mapping `patch` merged into it; `<absent>` removes a field."""
    if not (isinstance(body, dict) and isinstance(patch, dict)):
        return deepcopy(patch)
    kept = {key: value for key, value in body.items() if patch.get(key) != ABSENT}
    return kept | {key: patched(body.get(key, {}), value) for key, value in patch.items() if value != ABSENT}
