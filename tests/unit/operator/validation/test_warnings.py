"""Valid runs that are probably unintended: idle GPUs, and no GPU at all."""

from typing import Any

import pytest
import yaml

from seele_operator.validation.load import load_run, parse_run
from seele_operator.validation.warnings import run_warnings
from tests.support import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "manifests" / "examples").glob("*.yaml"))
ONE = REPOSITORY / "tests" / "unit" / "data" / "plan" / "one-of-each.run.yaml"
IN_PROCESS = {"engine": "transformers"}


ONE_GPU = {"nvidia.com/gpu": "1"}
GPU = {"resources": {"limits": ONE_GPU}}
TWO_STAGES = {"pipeline-parallel-size": 2}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "as many processes as GPUs": ({"processesPerReplica": 1, **GPU}, GPU, []),
    "one process for four GPUs": (
        {"resources": {"limits": {"nvidia.com/gpu": 4}}},
        GPU,
        ["spec.trainer.processesPerReplica: 1 of 4 nvidia.com/gpu"],
    ),
    "two processes for eight GPUs of AMD": (
        {"processesPerReplica": 2, "resources": {"limits": {"amd.com/gpu": "8"}}},
        GPU,
        ["spec.trainer.processesPerReplica: 2 of 8 amd.com/gpu"],
    ),
    "a server on one of two GPUs": (
        GPU,
        {"resources": {"limits": {"nvidia.com/gpu": "2000m"}}},
        ["spec.rollout.tensorParallelSize: 1 of 2 nvidia.com/gpu"],
    ),
    "four processes on one GPU": (
        {"processesPerReplica": 4, **GPU},
        GPU,
        ["spec.trainer.processesPerReplica: each pod needs 4 nvidia.com/gpu, and its limit is 1; use 1, or "],
    ),
    "a server on half of its GPUs": (
        GPU,
        {"resources": {"limits": {"nvidia.com/gpu": 2}}, "tensorParallelSize": 2, "engineArgs": TWO_STAGES},
        ["spec.rollout.tensorParallelSize: each pod needs 4 nvidia.com/gpu, and its limit is 2; use 2, or "],
    ),
    "idle GPUs in the pod template": (
        {"podTemplate": {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"amd.com/gpu": 8}}}]}}},
        IN_PROCESS,
        ["spec.trainer.processesPerReplica: 1 of 8 amd.com/gpu"],
    ),
    "idle parts of a GPU, and GPUs of Intel": (
        {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 7}}},
        {"resources": {"limits": {"gpu.intel.com/i915": 2}}},
        [
            "spec.trainer.processesPerReplica: 1 of 7 nvidia",
            "spec.rollout.tensorParallelSize: 1 of 2 gpu.intel.com/i915",
        ],
    ),
    "megabytes of a GPU": ({"resources": {"limits": {"nvidia.com/gpumem": 3000, **ONE_GPU}}}, IN_PROCESS, []),
    "zero GPUs": (
        {"resources": {"limits": {"nvidia.com/gpu": 0}}},
        IN_PROCESS,
        ["spec.trainer.resources.limits: no GPU"],
    ),
    "a server split into layers": (
        GPU,
        {"resources": {"limits": {"nvidia.com/gpu": "2"}}, "engineArgs": TWO_STAGES},
        [],
    ),
    "no GPU": ({}, {}, ["spec.trainer.resources.limits: no GPU", "spec.rollout.resources.limits: no GPU"]),
    "no GPU, and no server": ({}, IN_PROCESS, ["spec.trainer.resources.limits: no GPU"]),
    "only processors": (
        {"resources": {"limits": {"cpu": 8}}},
        IN_PROCESS,
        ["spec.trainer.resources.limits: no GPU"],
    ),
    "only a network card": (
        {"resources": {"limits": {"rdma/hca": 1}}},
        IN_PROCESS,
        ["spec.trainer.resources.limits: no GPU"],
    ),
    "a part of a GPU": ({"resources": {"limits": {"nvidia.com/mig-3g.40gb": 1}}}, IN_PROCESS, []),
    "a GPU in the pod template": (
        {"podTemplate": {"spec": {"containers": [{"name": "trainer", **GPU}]}}},
        IN_PROCESS,
        [],
    ),
    "a claim in the pod template": ({"podTemplate": {"spec": {"resourceClaims": [{"name": "gpu"}]}}}, IN_PROCESS, []),
    "a processor on purpose": ({"env": [{"name": "DS_ACCELERATOR", "value": "cpu"}]}, IN_PROCESS, []),
    "images without GPUs": ({"image": "registry.example/seele:1-cpu"}, {"image": "registry.example/vllm-cpu:1"}, []),
}
"""Trainer, rollout, and how the warnings start."""


@pytest.mark.parametrize("case", CASES)
def test_what_is_warned_about(case: str) -> None:
    trainer, rollout, expected = CASES[case]
    body = yaml.safe_load(ONE.read_text())
    body["spec"] |= {"trainer": trainer, "rollout": rollout}
    warnings = run_warnings(parse_run(body))

    assert len(warnings) == len(expected), warnings
    assert all(line.startswith(start) for line, start in zip(warnings, expected, strict=True)), warnings


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_have_no_warnings(example: Any) -> None:
    assert run_warnings(load_run(example)) == []
