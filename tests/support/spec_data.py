"""SeeleRuns for tests of the models, validation and CRD."""

import re
from copy import deepcopy
from typing import Any

import yaml

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.yaml_files import read_run_file
from seele_operator.plan.objects import plan
from seele_operator.validation.load import parse_run
from tests.support import REPOSITORY

DATA = REPOSITORY / "tests" / "unit" / "data"
FULL_RUN = DATA / "full_run.yaml"
BAD_SPECS: list[dict[str, Any]] = yaml.safe_load((DATA / "bad_specs.yaml").read_text())
ABSENT = "<absent>"


def small_run() -> dict[str, Any]:
    """The shortest SeeleRun."""
    return {
        "apiVersion": "seele.dev/v1alpha1",
        "kind": "SeeleRun",
        "metadata": {"name": "small"},
        "spec": {"model": {"name": "Qwen/Qwen2.5-1.5B"}, "dataset": {"path": "train.jsonl"}},
    }


def good_run() -> dict[str, Any]:
    """A short SeeleRun of two pods that breaks no rule of a cluster."""
    return patched(small_run(), {"spec": {"storage": {"run": {"persistentVolumeClaim": {"claimName": "runs"}}}}})


def full_run() -> dict[str, Any]:
    """A SeeleRun with every field."""
    return read_run_file(FULL_RUN)


def patched(body: Any, patch: Any) -> Any:
    """`body` with the mapping `patch` merged into it; `<absent>` removes a field."""
    if not (isinstance(body, dict) and isinstance(patch, dict)):
        return deepcopy(patch)
    kept = {key: value for key, value in body.items() if patch.get(key) != ABSENT}
    return kept | {key: patched(body.get(key, {}), value) for key, value in patch.items() if value != ABSENT}


def run_with(**spec: Any) -> SeeleRun:
    """The run `demo` with the sections in `spec`, which replace those of a short one."""
    sections = {"model": {"name": "org/model"}, "dataset": {"name": "org/data"}, **spec}
    return parse_run({**small_run(), "metadata": {"name": "demo"}, "spec": sections})


def pods(run: SeeleRun, attempt: int = 1) -> dict[str, dict[str, Any]]:
    """The planned pods, by name."""
    return {manifest["metadata"]["name"]: manifest for manifest in plan(run, attempt) if manifest["kind"] == "Pod"}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    """The variables of a pod's first container."""
    return {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}


CEL_CASES: dict[str, tuple[dict[str, Any], str]] = {
    # Its two pods share an emptyDir.
    "the shortest run": (small_run(), "spec.storage.run.emptyDir"),
    **{
        case["name"]: (patched(full_run(), case["patch"]), re.sub(r"\[\d+\]", "", case["place"].split(":")[0]))
        for case in BAD_SPECS
        if case.get("cel")
    },
}
"""Runs that each break one rule in CEL, and the field that the message names, without indexes of lists."""
