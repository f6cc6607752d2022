"""Methods train from a config.yaml to a model, and through a restart in the middle, without servers.

By default, the four methods that differ most from SEELE, which the other tests run. `SEELE_TEST_STRATEGIES=all` runs every
method, at 6 s each.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from safetensors.torch import load_file

from seele_operator.validation.load import parse_run
from seele_trainer.methods import METHODS, StrategyName
from tests.e2e.runs import QUICKSTART, records
from tests.support import REPOSITORY
from tests.support.docs_pages import blocks, text_of
from tests.support.spec_data import patched

pytestmark = pytest.mark.timeout(600)

EVERY: tuple[StrategyName, ...] = get_args(StrategyName)
# No rollouts at first and another schedule; hints learnt by cross-entropy, which trains even without rewards; off-policy
# tokens chosen by their uncertainty; solutions in place of a rollout.
DIFFERENT: tuple[StrategyName, ...] = ("sft_then_grpo", "uft", "prefix_rft", "luffy")
NAMES = EVERY if os.environ.get("SEELE_TEST_STRATEGIES") == "all" else DIFFERENT
STEPS = 4
TINY: dict[str, Any] = {
    "training": {
        "steps": STEPS,
        "problemsPerStep": 2,
        "problemsPerUpdate": 1,
        "learningRate": 3e-4,
        "sftThenGrpo": {"sftShare": 0.75, "sftLearningRate": 1e-3},
        "uft": {"hintShare": 1.0},
    },
    # With units of steps, UFT's slices and these hints are of the same kind.
    "hints": {"unit": "step", "rounds": 2, "rolloutsPerRound": 4, "unhintedProbes": 2, "supervision": "high-entropy"},
    "rollout": {"engine": "transformers", "replicas": 1, "maxCompletionTokens": 24},
    "evaluation": {"everySteps": 0, "benchmarks": []},
    "checkpoints": {"everySteps": 1, "keep": 10},
    "observability": {"tensorboard": False},
}


def config(strategy: StrategyName, quickstart: Path) -> dict[str, Any]:
    """The configuration of such a run's trainer."""
    run = yaml.safe_load(QUICKSTART.read_text())
    run["spec"] = patched(patched(run["spec"], TINY), {"training": {"strategy": strategy}})
    run["spec"]["model"]["name"] = str(quickstart / "base")
    run["spec"]["dataset"]["path"] = str(quickstart / "train.jsonl")
    return parse_run(run).spec.trainer_config(strategy).model_dump(mode="json", by_alias=True)


def train(configs: Mapping[Path, dict[str, Any]], **environment: str) -> None:
    """Train each configuration in its folder, and again from the middle in a copy of the folder."""
    for folder, content in configs.items():
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.strategies_worker", *map(str, configs)],
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    print(done.stdout[-4000:], done.stderr[-4000:])
    assert done.returncode == 0


@pytest.fixture(scope="module")
def runs(quickstart_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of finished runs, one for each strategy, next to those that were resumed in the middle."""
    folder = tmp_path_factory.mktemp("strategies")
    train({folder / name: config(name, quickstart_model) for name in NAMES})
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_each_method_trains_from_its_config_to_a_model(runs: Path, name: StrategyName, quickstart_model: Path) -> None:
    steps = records(runs / name, "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert all(step["tokens"]["trained"] > 0 for step in steps)
    assert all(step["unhintedAccuracy"] is not None for step in steps)
    assert name in (runs / name / "report.html").read_text()
    before, after = (
        load_file(quickstart_model / "base" / "model.safetensors"),
        load_file(runs / name / "final" / "model.safetensors"),
    )
    unchanged = all(torch.equal(after[key], tensor) for key, tensor in before.items())
    # Methods that learn only from rewards learn nothing without them, as on these problems.
    assert unchanged == all(step["gradientNorm"] == 0 for step in steps)
    assert not unchanged or name in ("grpo", "prefix_rft")


@pytest.mark.parametrize("name", NAMES)
def test_each_method_resumes_bit_for_bit_where_it_was_killed(runs: Path, name: StrategyName) -> None:
    check_resumed(runs / name, runs / f"{name}-resumed")


def check_resumed(whole: Path, resumed: Path) -> None:
    first, second = (folder / "final" / "model.safetensors" for folder in (whole, resumed))
    assert first.read_bytes() == second.read_bytes()
    exact = (
        *("step", "reward", "hintRate", "accuracyByRound", "losses"),
        *("gradientNorm", "learningRate", "tokens", "descents"),
    )
    seen = [[[step[key] for key in exact] for step in records(folder, "metrics.jsonl")] for folder in (whole, resumed)]
    assert seen[0] == seen[1]


def test_a_step_without_rollouts_records_null(runs: Path) -> None:
    *supervised, last = records(runs / "sft_then_grpo", "metrics.jsonl")
    assert len(supervised) == 3
    for step in supervised:
        about_rollouts = ("reward", "hintRate", "learningEfficiency", "zeroGradientGroups", "truncatedCompletions")
        assert [step[key] for key in about_rollouts] == [None] * 5
        assert step["rollouts"] == 0
        assert step["losses"]["supervised"] > 0
        assert step["losses"]["policy"] == step["losses"]["kl"] == 0.0
    assert (last["rollouts"], last["losses"]["supervised"]) == (16, 0.0)
    # Each phase ends at a tenth of its peak.
    assert [supervised[-1]["learningRate"], last["learningRate"]] == pytest.approx([1e-4, 3e-5])


def test_only_methods_with_hints_show_them(runs: Path) -> None:
    steps = {name: records(runs / name, "metrics.jsonl") for name in NAMES}
    for name in NAMES:
        hints = [step["tokens"]["hint"] for step in steps[name]]
        assert any(hints) == METHODS[name].shows_hints, name
        # LUFFY replaces one rollout of each problem by its solution, which is not sampled.
        fewer = {"sft": 0, "sft_then_grpo": 0, "luffy": 14}
        assert steps[name][0]["rollouts"] == fewer.get(name, 16), name


def test_a_method_added_as_documented_trains(tmp_path: Path, quickstart_model: Path) -> None:
    shutil.copytree(REPOSITORY / "trainer", tmp_path / "trainer", ignore=shutil.ignore_patterns("__pycache__"))
    method, line = [block for block in blocks("docs/choosing-a-method.md") if block.language in ("python", "diff")]
    assert method.text.count("\n") < 80
    assert [added for added in line.text.splitlines() if added.startswith("+") and not added.startswith("+++")] == [
        '+    "fading_hint",',
        '+    "fading_hint": Method(shows_hints=True),',
        "+from seele_trainer.strategies.fading_hint import FadingHint",
        '+    "fading_hint": FadingHint,',
    ]
    file = tmp_path / "trainer" / "seele_trainer" / "strategies" / "fading_hint.py"
    assert str(file.relative_to(tmp_path)) in text_of("docs/choosing-a-method.md")
    assert not file.exists()
    file.write_text(method.text)
    subprocess.run(["git", "apply", "-"], cwd=tmp_path, input=line.text, text=True, check=True)

    settings = config("fixed_hint", quickstart_model)
    settings["training"]["strategy"] = "fading_hint"
    train({tmp_path / "run": settings}, PYTHONPATH=str(tmp_path / "trainer"))

    check_resumed(tmp_path / "run", tmp_path / "run-resumed")
    rates = [step["hintRate"] for step in records(tmp_path / "run", "metrics.jsonl")]
    # Hints end where steps end, so the rates are only close to 1, 3/4, 1/2 and 1/4.
    assert rates[0] == 1.0
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.5
