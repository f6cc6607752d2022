"""Each file of manifests/examples is valid and fits the hardware that it names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.yaml_files import read_run_file
from seele_operator.cli import app
from seele_operator.decide.accept import differences
from seele_operator.local.accelerator import requested_gpus
from seele_operator.plan.objects import plan, pods
from seele_operator.validation.load import check_cluster, check_run, load_run
from seele_operator.validation.local_files import local_files
from seele_trainer.evaluation.benchmarks import BENCHMARKS
from tests.support import REPOSITORY

FOLDER = REPOSITORY / "manifests" / "examples"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))


@dataclass(frozen=True)
class Hardware:
    """The hardware that the first comment of an example requires."""

    nodes: int
    gpus: int
    """GPUs per node."""
    words: str
    """The words of the comment."""


HARDWARE = {
    "quickstart": Hardware(1, 0, "any machine without a GPU"),
    # Two slices of one GPU, or two GPUs.
    "one-gpu": Hardware(1, 2, "a node with two GPUs, or"),
    "private-model": Hardware(1, 2, "two GPUs of 40 GB"),
    "eight-gpus": Hardware(1, 8, "one node with eight GPUs"),
    "deepmath-1.5b": Hardware(1, 8, "one node with eight GPUs"),
    "grpo-baseline": Hardware(1, 8, "one node with eight GPUs"),
    "resume": Hardware(1, 8, "one node with eight GPUs"),
    "several-nodes-kueue": Hardware(4, 8, "four nodes of eight GPUs"),
    "several-nodes-rdma": Hardware(4, 8, "four nodes of eight GPUs"),
}

PAPER: dict[str, Any] = {
    "model": {"name": "Qwen/Qwen2.5-1.5B"},
    "dataset": {"name": "zwhe99/DeepMath-103K", "promptTemplate": "r1-zero"},
    "training": {
        "strategy": "seele",
        "steps": 400,
        "problemsPerStep": 256,
        "problemsPerUpdate": 64,
        "clipEpsilon": 0.2,
        "klCoefficient": 0.001,
        "hintLossCoefficient": 0.001,
        "advantageGroup": "problem",
    },
    "hints": {"targetAccuracy": 0.5, "rounds": 4, "rolloutsPerRound": 8, "estimator": "paper", "unhintedShare": 0},
    "rollout": {"temperature": 1.0, "maxCompletionTokens": 2048},
    "evaluation": {"temperature": 0.6},
}
"""Section 5.1 of arXiv 2509.06923."""


def example(name: str) -> SeeleRun:
    return load_run(FOLDER / f"{name}.yaml")


def head(name: str) -> str:
    """The comment at the start of an example, as one line."""
    lines = (FOLDER / f"{name}.yaml").read_text().split("\napiVersion:")[0].splitlines()
    assert all(line.startswith("#") for line in lines)
    return " ".join(" ".join(line.removeprefix("#") for line in lines).split())


def settings(run: SeeleRun) -> dict[str, Any]:
    return run.spec.model_dump(mode="json", by_alias=True)


def test_each_example_has_its_hardware_here() -> None:
    assert sorted(HARDWARE) == NAMES
    assert len({example(name).metadata.name for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_starts_with_its_requirements_and_what_to_change(name: str) -> None:
    comment = head(name)

    assert " Needs: " in comment
    assert " Change: " in comment
    assert HARDWARE[name].words in comment


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_valid_here_and_on_a_cluster(name: str, tmp_path: Path) -> None:
    run = example(name)

    assert [*check_run(run), *check_cluster(run)] == []
    # The quickstart names files that `make quickstart` makes; the others name what is on the hub.
    missing = [line.split(":")[0] for check in local_files(tmp_path) for line in check(run.spec)]
    assert missing == (
        ["spec.dataset.path", "spec.evaluation.benchmarks[0].path", "spec.model.name"] if name == "quickstart" else []
    )


@pytest.mark.parametrize("name", NAMES)
def test_an_example_can_be_rendered(name: str) -> None:
    result = CliRunner().invoke(app, ["render", "-f", str(FOLDER / f"{name}.yaml")])

    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("\nkind: Pod\n") == len(pods(example(name), 1))


@pytest.mark.parametrize("name", NAMES)
def test_an_example_uses_the_hardware_it_names_and_no_more(name: str) -> None:
    wanted = sorted(map(requested_gpus, pods(example(name), 1).values()), reverse=True)
    free = [HARDWARE[name].gpus] * HARDWARE[name].nodes
    for gpus in wanted:
        node = next((index for index, left in enumerate(free) if left >= gpus), None)
        assert node is not None, f"no node has {gpus} GPUs left: {free}"
        free[node] -= gpus

    assert sum(free) == 0


def test_deepmath_has_the_papers_settings_and_benchmarks() -> None:
    run = example("deepmath-1.5b")
    actual = settings(run)

    assert {section: {field: actual[section][field] for field in fields} for section, fields in PAPER.items()} == PAPER
    assert {benchmark.title: benchmark for benchmark in run.spec.evaluation.benchmarks} == BENCHMARKS


def test_the_papers_settings_are_written_out() -> None:
    written = read_run_file(FOLDER / "deepmath-1.5b.yaml")["spec"]

    unwritten = {
        (section, field) for section, fields in PAPER.items() for field in fields if field not in written[section]
    }
    assert unwritten == {("hints", "unhintedShare")}


def test_the_baseline_differs_only_in_the_method() -> None:
    seele, grpo = (settings(example(name)) for name in ("deepmath-1.5b", "grpo-baseline"))

    assert differences(seele, grpo, ()) == ['training.strategy: was "seele" and is "grpo"']


def test_the_resume_example_can_resume_from_the_checkpoints_of_deepmath() -> None:
    before, after = example("deepmath-1.5b"), example("resume")

    old, new = ({**settings(run), "storage": None, "scheduling": None} for run in (before, after))
    assert differences(old, new) == []
    # The operator does not see that a claim by name belongs to one node, so the example sets the affinity of a template.
    affinities = (pod["spec"]["affinity"] for run in (before, after) for pod in pods(run, 1).values())
    assert len({str(affinity).replace(after.metadata.name, before.metadata.name) for affinity in affinities}) == 1
    assert after.spec.training.steps > before.spec.training.steps
    claim = after.spec.storage.run.persistent_volume_claim
    kept = [manifest["metadata"]["name"] for manifest in plan(before, 1) if manifest["kind"] == "PersistentVolumeClaim"]
    assert claim is not None
    assert [claim.claim_name] == kept


def test_the_private_example_names_its_two_secrets() -> None:
    run = example("private-model")

    assert settings(run)["storage"]["huggingFaceTokenSecret"] == {"name": "hugging-face", "key": "token"}
    assert [pod["spec"]["imagePullSecrets"] for pod in pods(run, 1).values()] == [[{"name": "registry"}]] * 2
