"""Whole runs as a user starts them: from a SeeleRun file to a better model, its curves and its report."""

import signal
import subprocess
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.e2e.runs import finish, held_out, leftovers, records, start, write_run
from tests.e2e.watched_run import STEPS, QuickstartRun
from tests.support import REPOSITORY
from tests.support.waiting import wait_for

pytestmark = pytest.mark.timeout(1500)

IN_PROCESS: dict[str, Any] = {
    "training": {"steps": 6, "problemsPerStep": 4, "problemsPerUpdate": 2, "learningRateSchedule": "linear"},
    "hints": {"rounds": 3, "rolloutsPerRound": 4, "unhintedProbes": 2},
    "rollout": {"engine": "transformers"},
    "evaluation": {"everySteps": 3, "benchmarks": []},
    "checkpoints": {"everySteps": 1},
}


def test_a_run_with_vllm_and_deepspeed_makes_the_model_better(quickstart_run: QuickstartRun) -> None:
    assert quickstart_run.exit_code == 0
    out = quickstart_run.out
    before, *_, after = held_out(out)
    assert before == 0
    assert after >= 0.8
    steps = records(out, "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, STEPS + 1))
    assert [step["policyVersion"] for step in steps] == list(range(1, STEPS + 1))
    # The canary proves each sync: what the server scores is what the trainer does.
    assert max(step["canaryDifference"] for step in steps) < 1e-3
    assert max(step["mismatchKl"] for step in steps) < 1e-3
    for name in ("config.yaml", "report.html", "rollouts.jsonl", "checkpoints/LATEST", "final/config.json"):
        assert (out / name).is_file(), name
    tokenizer = AutoTokenizer.from_pretrained(out / "final")
    model = AutoModelForCausalLM.from_pretrained(out / "final")
    prompt = tokenizer("37 a+5 b-8 c+4 d+9 e-2 f+7 g-3\n", return_tensors="pt")["input_ids"]
    assert "#### " in tokenizer.decode(model.generate(prompt, max_new_tokens=40, do_sample=False)[0])
    assert leftovers(out) == []


def test_hints_keep_the_quickstart_at_its_target_and_shrink(quickstart_run: QuickstartRun) -> None:
    steps = records(quickstart_run.out, "metrics.jsonl")
    settled = steps[STEPS // 5 :]
    # Rounds 3 and 4 know the problem, and hit the target all along.
    for part in (settled[: len(settled) // 2], settled[len(settled) // 2 :]):
        for number in (2, 3):
            assert fmean(step["accuracyByRound"][number] for step in part) == pytest.approx(0.5, abs=0.05)
    # Most of what rollouts could teach, they teach: 4a(1−a) is 1 at an accuracy of one half, and 0 if all rewards are equal.
    assert fmean(step["learningEfficiency"] for step in settled) > 0.88
    assert fmean(step["zeroGradientGroups"] for step in settled) < 0.05
    # Hints shrink, but are needed until the end.
    quarters = [
        fmean(step["hintRate"] for step in steps[first : first + STEPS // 4]) for first in range(0, STEPS, STEPS // 4)
    ]
    assert quarters[0] > quarters[1] > quarters[2]
    assert quarters[3] < 0.3
    assert sum(step["hintRate"] > 0.05 for step in steps) > 0.9 * STEPS


def test_a_killed_and_resumed_run_ends_bit_for_bit_like_an_uninterrupted_one(tmp_path: Path) -> None:
    run = write_run(tmp_path, IN_PROCESS)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert finish(start(run, whole), whole) == 0

    process = start(run, broken)
    wait_for(lambda: len(records(broken, "metrics.jsonl")) >= 3, "three steps", 240)
    process.kill()
    process.wait()
    wait_for(lambda: leftovers(broken) == [], "no process of the killed run is left", 30)
    assert len(records(broken, "metrics.jsonl")) < 6
    assert finish(start(run, broken), broken) == 0

    assert (whole / "final" / "model.safetensors").read_bytes() == (broken / "final" / "model.safetensors").read_bytes()
    exact = ("step", "reward", "hintRate", "accuracyByRound", "losses", "gradientNorm", "tokens")
    assert [[step[key] for key in exact] for step in records(whole, "metrics.jsonl")] == [
        [step[key] for key in exact] for step in records(broken, "metrics.jsonl")
    ]


def test_ctrl_c_saves_and_the_same_command_resumes(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = write_run(tmp_path, {**IN_PROCESS, "checkpoints": {"everySteps": 1000}})
    process = start(run, out)
    wait_for(lambda: len(records(out, "metrics.jsonl")) >= 2, "two steps", 240)
    process.send_signal(signal.SIGINT)
    assert finish(process, out) == 130
    assert leftovers(out) == []
    done = len(records(out, "metrics.jsonl"))
    assert (out / "checkpoints" / "LATEST").read_text() == f"step-{done}"

    assert finish(start(run, out), out) == 0
    assert [step["step"] for step in records(out, "metrics.jsonl")] == list(range(1, 7))


def test_two_ranks_and_two_servers_survive_the_death_of_a_server(tmp_path: Path) -> None:
    out = tmp_path / "run"
    run = write_run(
        tmp_path,
        {
            "training": {"steps": 8, "problemsPerUpdate": 8},
            "trainer": {"processesPerReplica": 2, "deepspeed": {"zeroStage": 2}},
            "rollout": {"replicas": 2},
            "evaluation": {"everySteps": 0, "benchmarks": []},
        },
    )
    process = start(run, out)
    wait_for(lambda: len(records(out, "metrics.jsonl")) >= 2, "two steps", 400)
    server = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "vllm.entrypoints.openai.api_server" in " ".join(child.cmdline())
    )
    server.kill()
    assert finish(process, out) == 0
    steps = records(out, "metrics.jsonl")
    assert [step["step"] for step in steps] == list(range(1, 9))
    assert all(step["rollouts"] == 16 * 4 * 8 for step in steps)
    assert leftovers(out) == []


def test_the_whole_path_works_on_gsm8k_with_a_bpe_tokenizer(
    tmp_path: Path, shared_data: Path, gsm8k_tokenizer: Any
) -> None:
    from tests.support.small_models import save_llama

    # Tied, like most small pretrained models.
    changes = {
        "vocab_size": len(gsm8k_tokenizer),
        "max_position_embeddings": 1024,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    save_llama(tmp_path / "model", seed=0, tied=True, **changes)
    gsm8k_tokenizer.save_pretrained(tmp_path / "model")
    out = tmp_path / "run"
    run = write_run(
        tmp_path,
        {
            **IN_PROCESS,
            "model": {"name": str(tmp_path / "model"), "contextLength": 1024},
            "dataset": {
                "path": str(shared_data / "gsm8k" / "train.jsonl"),
                "format": "gsm8k",
                "fields": {"id": None, "answer": None},
                "promptTemplate": "r1-zero",
                "limit": 64,
                "maxPromptTokens": 500,
                "maxSolutionTokens": 400,
            },
            "training": {"steps": 2, "problemsPerStep": 4, "problemsPerUpdate": 2},
            "hints": {"unit": "step", "rounds": 2, "rolloutsPerRound": 4, "unhintedProbes": 2},
            "rollout": {"engine": "transformers", "maxCompletionTokens": 24},
            "verifier": {"method": "math"},
            "evaluation": {
                "everySteps": 0,
                "benchmarks": [
                    {
                        "title": "gsm8k",
                        "path": str(shared_data / "gsm8k" / "test.jsonl"),
                        "format": "gsm8k",
                        "limit": 8,
                        "samples": 2,
                    }
                ],
            },
        },
    )
    assert finish(start(run, out), out) == 0
    first, last = records(out, "metrics.jsonl")
    assert first["tokens"]["hint"] > 0
    assert first["tokens"]["generated"] > 0
    assert last["verifierTimeouts"] == 0
    assert records(out, "eval.jsonl")[-1]["scores"]["gsm8k"]["problems"] == 8
    # A tied model stays tied: the untied copy is only for the servers.
    assert "lm_head.weight" not in load_file(out / "final" / "model.safetensors")
    # Hints of real solutions are shown, and none contains the answer.
    rollouts = records(out, "rollouts.jsonl")
    assert any(rollout["hint"] for rollout in rollouts)
    assert not any("####" in rollout["hint"] for rollout in rollouts)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"training": {"problemsPerUpdate": 5}}, "problemsPerUpdate"),
        ({"dataset": {"path": "no-such-file.jsonl"}}, "no-such-file.jsonl"),
        ({"model": {"name": "no/such/folder/here"}}, "spec.model.name"),
        ({"hints": {"targetAccuracy": 1.5}}, "spec.hints.targetAccuracy"),
    ],
)
def test_a_refused_run_leaves_nothing_behind(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    run = write_run(tmp_path, spec)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "seele_operator.cli", "run", "-f", str(run), "--out", str(out)]
    finished = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert words in finished.stderr
    assert len(finished.stderr.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]
