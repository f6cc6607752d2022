import asyncio
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seele_trainer.evaluation.command import EngineKind, run
from seele_trainer.evaluation.local_server import local_server
from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.termination import ExitCode
from tests.support.small_models import EOS, save_llama

QUESTIONS = ("alpha", "beta", "gamma", "delta")
ANSWERS = ("7", "8", "9", "12")


@pytest.fixture(scope="module")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, in the folder of a run, that has memorised answers to four questions; the last answer is wrong.

    After each answer it continues with another question, which the run's stop string keeps from being graded.
    """
    run_folder = tmp_path_factory.mktemp("run")
    folder = run_folder / "final"
    boxed = [f"\\boxed{{{answer}}}" for answer in (*ANSWERS[:3], "13")]
    beyond = ["Next", "\\boxed{0}"]
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<s>", *QUESTIONS, *boxed, *beyond])}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="<pad>")
    model = save_llama(folder, seed=0).train()
    rows = torch.tensor(
        [
            [words[question], words[answer], *map(words.__getitem__, beyond), EOS]
            for question, answer in zip(QUESTIONS, boxed, strict=True)
        ]
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    loss = torch.tensor(1.0)
    for _ in range(300):
        loss = model(input_ids=rows, labels=rows.masked_fill(torch.tensor([True] + [False] * 4), -100)).loss
        if loss < 1e-4:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 1e-2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (run_folder / "config.yaml").write_text(
        "name: memorised\ndataset: {promptTemplate: plain}\nrollout: {stop: [Next]}\nrewards: {truncated: mask}\n"
    )
    return folder


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    rows = [{"question": q, "answer": f"Easy.\n#### {a}"} for q, a in zip(QUESTIONS, ANSWERS, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.timeout(400))])
def test_a_models_scores_are_shown_and_written_and_nothing_is_left_running(
    engine: EngineKind, memorised: Path, problems: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    out = tmp_path / "scores.json"
    code = run(str(memorised), ["gsm8k"], {"gsm8k": problems}, samples=4, engine=engine, max_tokens=8, out=out)
    shown = capfd.readouterr()
    assert code == ExitCode.DONE, shown.err
    assert "75.0%" in shown.out
    written = json.loads(out.read_text())
    # Taken from the config.yaml next to the model.
    assert (written["template"], written["stop"], written["truncated"]) == ("plain", ["Next"], "mask")
    score = written["scores"]["gsm8k"]
    assert (score["problems"], score["greedyAccuracy"], score["samples"], score["truncated"]) == (4, 0.75, 4, 0.0)
    assert score["sampledAccuracy"] == pytest.approx(0.75, abs=0.07)
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    # Python's helper process of multiprocessing lives as long as the test process.
    assert [process for process in left if "resource_tracker" not in " ".join(process.cmdline())] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"benchmarks": ["gsm9k"]}, "unknown benchmark 'gsm9k'"),
        ({"benchmarks": []}, "no benchmark is named"),
        ({"model": "./nowhere"}, "--model: the folder ./nowhere does not exist"),
        ({"data": {"math500": "x.jsonl"}}, "--data names 'math500', which is not among the benchmarks gsm8k"),
        ({"template": "bare"}, "--template: 'bare' is not a prompt template; use r1-zero or chat or plain"),
        ({"template": "chat"}, "has no chat template"),
        ({"out": Path("/nonexistent/scores.json")}, "the folder /nonexistent does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: dict[str, object], message: str, memorised: Path, problems: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"model": str(memorised), "benchmarks": ["gsm8k"], "data": {"gsm8k": problems}, "engine": "transformers"}
    code = run(**(given | arguments))  # type: ignore[arg-type]
    shown = capfd.readouterr()
    assert code == ExitCode.BAD_INPUT
    assert message in shown.err
    assert len(shown.err.splitlines()) == 1
    assert shown.out == ""


def test_a_server_that_cannot_start_ends_the_evaluation_with_its_log(
    memorised: Path, problems: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "seele_trainer.evaluation.local_server.server_command",
        lambda *_, **__: ["/bin/sh", "-c", "echo no memory for you; exit 3"],
    )
    assert run(str(memorised), ["gsm8k"], {"gsm8k": problems}, engine="vllm") == ExitCode.FAILED
    assert "the vLLM server ended with code 3; the end of its log:\nno memory for you" in capfd.readouterr().err


async def test_a_server_and_its_children_are_gone_when_the_body_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The server and its child ignore SIGTERM.
    script = f"trap '' TERM; sleep 600 & echo $! > {tmp_path / 'child'}; wait"
    monkeypatch.setattr("seele_trainer.evaluation.local_server.STOP_SECONDS", 0.2)
    monkeypatch.setattr(
        "seele_trainer.evaluation.local_server.server_command", lambda *_, **__: ["/bin/sh", "-c", script]
    )

    async def work_that_fails() -> None:
        async with local_server(tmp_path, "seele", 64, tmp_path / "log", gpu=False) as url:
            assert url.startswith("http://127.0.0.1:")
            await asyncio.to_thread(number_in, tmp_path / "child")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await work_that_fails()
    child = number_in(tmp_path / "child")
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


async def test_a_server_that_dies_later_interrupts_the_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f"echo $$ > {tmp_path / 'pid'}; exec sleep 600"
    monkeypatch.setattr(
        "seele_trainer.evaluation.local_server.server_command", lambda *_, **__: ["/bin/sh", "-c", script]
    )

    async def work_without_end() -> None:
        async with local_server(tmp_path, "seele", 64, tmp_path / "log", gpu=False), asyncio.timeout(20):
            os.kill(await asyncio.to_thread(number_in, tmp_path / "pid"), signal.SIGKILL)
            await asyncio.Event().wait()

    with pytest.raises(RolloutUnavailable, match="ended with code -9"):
        await work_without_end()


def number_in(path: Path) -> int:
    """The number that another process is about to write to a file."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().endswith("\n"):
            return int(path.read_text())
        time.sleep(0.01)
    raise TimeoutError(f"nothing in {path}")
