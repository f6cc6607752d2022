"""The models of a SeeleRun: defaults, names, and the part that trainer pods read."""

import subprocess
import sys
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from seele_operator.api.seelerun import SeeleRun, SeeleRunSpec
from seele_operator.api.types import amount
from seele_operator.validation.load import parse_run
from seele_operator.validation.schema import PRESERVE, Schema, run_schema
from seele_trainer import config
from tests.support.spec_data import full_run, patched, small_run

# The full example has one of each group.
CLAIMS = ("persistentVolumeClaim", "persistentVolumeClaimTemplate")
ALTERNATIVES = {"dataset.path"} | {f"storage.run.{kind}" for kind in ("persistentVolumeClaim", "hostPath", "emptyDir")}
ALTERNATIVES |= {f"storage.huggingFaceCache.{kind}" for kind in (*CLAIMS, "emptyDir")}


def leaves(schema: Schema, body: Any, path: str = "") -> dict[str, Any]:
    """Every field of the schema by its path, with its value in `body`; KeyError stands for a missing one."""
    if "items" in schema and isinstance(body, list) and body:
        return leaves(schema["items"], body[0], f"{path}[0]")
    if "properties" not in schema or schema.get(PRESERVE):
        return {path: body}
    found: dict[str, Any] = {}
    for name, inner in schema["properties"].items():
        place = f"{path}.{name}".removeprefix(".")
        if place in ALTERNATIVES:
            continue
        value = body.get(name, KeyError) if isinstance(body, dict) else KeyError
        found |= leaves(inner, value, place)
    return found


def test_the_full_example_sets_every_field() -> None:
    spec = run_schema()["properties"]["spec"]
    missing = [path for path, value in leaves(spec, full_run()["spec"]).items() if value is KeyError]
    # The first of two benchmarks comes from the Hub; the second has a path.
    assert missing == ["evaluation.benchmarks[0].path"]


def test_a_run_survives_a_round_trip_through_yaml() -> None:
    for body in (small_run(), full_run()):
        run = parse_run(body)
        again = parse_run(yaml.safe_load(yaml.safe_dump(run.model_dump(mode="json", by_alias=True))))
        assert again == run


def test_a_full_run_is_read_as_written() -> None:
    run = parse_run(full_run())
    written = run.model_dump(mode="json", by_alias=True, exclude_unset=True)
    limits = written["spec"]["trainer"]["resources"]["limits"]
    assert limits.pop("nvidia.com/gpu") == "4"
    expected = full_run()
    del expected["spec"]["trainer"]["resources"]["limits"]["nvidia.com/gpu"]
    assert written["spec"]["trainer"]["resources"]["requests"] == {"cpu": "8", "memory": "64Gi"}
    expected["spec"]["trainer"]["resources"]["requests"]["cpu"] = "8"
    assert written == expected


def test_defaults_are_the_paper_settings() -> None:
    spec = parse_run(small_run()).spec
    assert (spec.hints.rounds, spec.hints.rollouts_per_round, spec.hints.target_accuracy) == (4, 8, 0.5)
    assert (spec.training.problems_per_step, spec.training.problems_per_update, spec.training.steps) == (256, 64, 400)
    assert spec.rollout.max_completion_tokens == 2048
    assert (spec.training.kl_coefficient, spec.training.hint_loss_coefficient) == (0.001, 0.001)


def test_policy_defaults() -> None:
    spec = parse_run(small_run()).spec
    assert (spec.run_policy.backoff_limit, spec.run_policy.disruption_limit) == (3, 20)
    assert spec.run_policy.clean_pod_policy == "Running"
    assert spec.run_policy.termination_grace_period_seconds == 1800
    assert spec.storage.run.empty_dir is not None
    assert spec.storage.shared_memory == "8Gi"
    assert spec.scheduling.gang == "none"
    assert parse_run(small_run()).metadata.namespace == "default"


def test_trainer_pods_read_the_spec_without_the_fields_about_pods() -> None:
    run = parse_run(full_run())
    trainer = run.spec.trainer_config(run.metadata.name)
    assert type(trainer) is config.TrainerConfig
    assert type(trainer.trainer) is config.Trainer
    assert type(trainer.rollout) is config.RolloutOptions
    written = trainer.model_dump(mode="json", by_alias=True)
    assert written["name"] == "full-run"
    assert "image" not in written["trainer"]
    assert "engineArgs" not in written["rollout"]
    assert set(written) == set(full_run()["spec"]) - {"storage", "runPolicy", "scheduling"} | {"name"}
    for section in ("model", "dataset", "training", "hints", "verifier", "checkpoints", "observability"):
        assert written[section] == run.spec.model_dump(mode="json", by_alias=True)[section]
    assert trainer.trainer.world_size == 8
    assert trainer.rollout.replicas == 2
    assert trainer.rollout.canary_tolerance == 0.2


def test_trainer_pods_can_read_their_configuration() -> None:
    written = parse_run(full_run()).spec.trainer_config("full-run")
    text = yaml.safe_dump(written.model_dump(mode="json", by_alias=True))
    assert config.TrainerConfig.model_validate(yaml.safe_load(text)) == written


@pytest.mark.parametrize("name", ["a", "run-1", "a" * 40])
def test_good_names_are_accepted(name: str) -> None:
    assert parse_run(patched(small_run(), {"metadata": {"name": name}})).metadata.name == name


def test_a_run_cannot_be_changed_in_place() -> None:
    run = parse_run(small_run())
    with pytest.raises(ValidationError, match="frozen"):
        run.spec.training.steps = 3  # type: ignore[misc]


def test_engine_arguments_keep_their_types() -> None:
    flags = {"enforce-eager": True, "block-size": 16, "gpu-memory-utilization": 0.5, "quantization": "fp8"}
    run = parse_run(patched(small_run(), {"spec": {"rollout": {"engineArgs": flags}}}))
    assert run.spec.rollout.engine_args == flags
    assert [type(value) for value in run.spec.rollout.engine_args.values()] == [bool, int, float, str]


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("0", 0),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("2k", 2000),
        ("8Gi", 8 * 2**30),
        ("1e3", 1000),
        ("1E", 10**18),
        (".5Mi", 2**19),
    ],
)
def test_quantities_are_read_as_kubernetes_reads_them(quantity: str, number: float) -> None:
    assert float(amount(quantity)) == number


@pytest.mark.parametrize("quantity", ["", "8GB", "-1", "1 Gi", "Gi", "1e", "0x10", "8gi"])
def test_invalid_quantities_are_refused(quantity: str) -> None:
    with pytest.raises(ValueError, match="not a Kubernetes quantity"):
        amount(quantity)


def test_importing_the_spec_imports_no_heavy_library() -> None:
    code = "import sys, seele_operator.validation.load, seele_operator.validation.crd; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "kopf", "kubernetes", "transformers", "pyarrow"} & set(loaded)


def test_models_accept_python_names() -> None:
    spec = SeeleRun.model_fields["spec"].annotation
    assert spec is SeeleRunSpec
    with_python_names = SeeleRunSpec(model=config.Model(name="x"), dataset=config.Dataset(path="a.jsonl"))
    assert with_python_names.dataset.path == "a.jsonl"
