"""A run on a real model with its own tokenizer and chat template: SmolLM2-135M-Instruct on problems of GSM8K."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.runs import finish, leftovers, records, start
from tests.support import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.real_model, pytest.mark.timeout(1500)]

ROWS = 4


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """The model's folder; skips where it cannot be downloaded."""
    fetched = subprocess.run(
        [sys.executable, "-m", "tools.smollm2"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if fetched.returncode == 2:
        pytest.skip(fetched.stderr.strip().splitlines()[-1])
    assert fetched.returncode == 0, fetched.stderr
    return Path(fetched.stdout.strip())


@pytest.fixture(scope="module")
def short_rows(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the shortest problems of GSM8K, since a CPU trains a model of this size on few tokens a second."""
    lines = (shared_data / "gsm8k" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    path = tmp_path_factory.mktemp("gsm8k") / "train.jsonl"
    path.write_text("\n".join(sorted(lines, key=len)[:ROWS]) + "\n", encoding="utf-8")
    return path


def spec(model: Path, data: Path, engine: str) -> dict[str, Any]:
    """Two steps of two problems, each with two rounds of two rollouts."""
    return {
        "model": {"name": str(model), "dtype": "float32", "contextLength": 512},
        "dataset": {
            "path": str(data),
            "format": "gsm8k",
            "promptTemplate": "chat",
            "maxPromptTokens": 256,
            "maxSolutionTokens": 160,
        },
        "training": {"steps": 2, "problemsPerStep": 2, "problemsPerUpdate": 2, "learningRate": 1e-6},
        "hints": {"rounds": 2, "rolloutsPerRound": 2, "unhintedProbes": 1},
        "rollout": {"engine": engine, "maxCompletionTokens": 48},
        "verifier": {"method": "math"},
        "evaluation": {"everySteps": 0},
        "checkpoints": {"everySteps": 2},
    }


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_two_steps_on_a_real_model(engine: str, smollm2: Path, short_rows: Path, tmp_path: Path) -> None:
    run, out = tmp_path / "run.yaml", tmp_path / "run"
    manifest = {
        "apiVersion": "seele.dev/v1alpha1",
        "kind": "SeeleRun",
        "metadata": {"name": "smollm2"},
        "spec": spec(smollm2, short_rows, engine),
    }
    run.write_text(yaml.safe_dump(manifest))

    assert finish(start(run, out), out, 1400) == 0

    steps = records(out, "metrics.jsonl")
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        assert step["rollouts"] == 2 * 2 * 2
        assert step["canaryDifference"] < 1e-3
        assert abs(step["mismatchKl"]) < 1e-3
        assert all(math.isfinite(loss) for loss in step["losses"].values())
        assert math.isfinite(step["gradientNorm"])
        assert step["gradientNorm"] > 0
    _check_hints(out, smollm2, short_rows)
    _check_final_model(out, smollm2)
    assert leftovers(out) == []


def _check_hints(out: Path, model: Path, data: Path) -> None:
    """What rollouts were shown is the beginning of their problem's solution, after the model's own chat template."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(model)
    shown = records(out, "rollouts.jsonl")
    assert any(rollout["hint"] for rollout in shown)
    for rollout in shown:
        row = next(row for row in rows if row["question"] in rollout["prompt"])
        message = rollout["prompt"].partition("user\n")[2].removesuffix("\nassistant\n")
        templated = tokenizer.apply_chat_template([{"role": "user", "content": message}], add_generation_prompt=True)
        assert rollout["prompt"] == tokenizer.decode(templated["input_ids"], skip_special_tokens=True)
        solution = re.sub(r"<<.*?>>", "", row["answer"])
        assert solution.startswith(rollout["hint"]), rollout["hint"]
        assert row["answer"].rpartition("#### ")[2] not in rollout["hint"].rpartition("####")[2]


def _check_final_model(out: Path, start_from: Path) -> None:
    """The trained model loads, answers, and is not what training started from."""
    tokenizer = AutoTokenizer.from_pretrained(out / "final")
    model = AutoModelForCausalLM.from_pretrained(out / "final")
    before = AutoModelForCausalLM.from_pretrained(start_from).state_dict()
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert any(not tensor.equal(before[name]) for name, tensor in after.items())
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is 3 + 4?"}],
        add_generation_prompt=True,
        return_dict=True,
        return_tensors="pt",
    )
    completion = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "7" in tokenizer.decode(completion)
