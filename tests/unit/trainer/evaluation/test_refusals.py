"""What `seele eval` refuses: exit code 2, one line on stderr, and nothing is started."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from seele_trainer.evaluation.command import run
from seele_trainer.run_folder.records import BenchmarkScore
from seele_trainer.termination import ExitCode


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a model without weights."""
    folder = tmp_path / "run" / "final"
    raw = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", pad_token="<pad>").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "max_position_embeddings": 64}))
    return folder


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({"question": "1 + 1?", "answer": "2.\n#### 2"}) + "\n")
    return path


def refusal(capsys: pytest.CaptureFixture[str], model: Path, problems: Path, out: Path | None = None) -> str:
    assert run(str(model), ["gsm8k"], {"gsm8k": problems}, engine="transformers", out=out) == ExitCode.BAD_INPUT
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_model_without_weights(capsys: pytest.CaptureFixture[str], model: Path, problems: Path) -> None:
    line = refusal(capsys, model, problems)
    assert line == f"--model: {model} has no weights (*.safetensors); save the model with save_pretrained"


def test_a_model_with_torn_weights(capsys: pytest.CaptureFixture[str], model: Path, problems: Path) -> None:
    (model / "model.safetensors").write_bytes(b"junk" * 10)
    line = refusal(capsys, model, problems)
    assert line.startswith(f"--model: {model / 'model.safetensors'} is not a complete safetensors file")


def test_a_model_with_a_broken_configuration(capsys: pytest.CaptureFixture[str], model: Path, problems: Path) -> None:
    (model / "config.json").write_text("{")
    line = refusal(capsys, model, problems)
    assert line.startswith(f"--model: {model} cannot be loaded: ")
    assert line.endswith("Give the folder that save_pretrained wrote, with its tokenizer")


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xffa", b"rollout: {stop: ['']}", b"rewards: {truncated: cut}"])
def test_a_run_whose_settings_cannot_be_read(
    capsys: pytest.CaptureFixture[str], model: Path, problems: Path, content: bytes
) -> None:
    config = model.parent / "config.yaml"
    config.write_bytes(content)
    line = refusal(capsys, model, problems)
    assert line == (
        f"{config} cannot be read for the run's prompt template, stop strings and rewards: mend it, or move the model's "
        "folder away from it"
    )


def test_the_scores_cannot_be_written_to_a_folder(
    capsys: pytest.CaptureFixture[str], model: Path, problems: Path, tmp_path: Path
) -> None:
    assert refusal(capsys, model, problems, tmp_path) == (
        f"--out {tmp_path}: is a folder; give the file to write the scores to"
    )


def test_scores_are_written_to_what_out_is_and_do_not_replace_it(
    model: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def examined(*_: object) -> dict[str, BenchmarkScore]:
        return {"gsm8k": BenchmarkScore(problems=1, greedy_accuracy=1.0)}

    monkeypatch.setattr("seele_trainer.evaluation.command._examine", examined)
    (tmp_path / "link").symlink_to(tmp_path / "scores.json")
    assert run(str(model), ["gsm8k"], {"gsm8k": problems}, url="http://a:1", out=tmp_path / "link") == ExitCode.DONE
    assert (tmp_path / "link").is_symlink()
    assert json.loads((tmp_path / "scores.json").read_text())["scores"]["gsm8k"]["greedyAccuracy"] == 1.0


def test_waiting_for_a_server_is_shown_and_limited(
    capsys: pytest.CaptureFixture[str], model: Path, problems: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("seele_trainer.rollout.pool._PROGRESS_SECONDS", 0.05)
    monkeypatch.setattr("seele_trainer.evaluation.command.URL_SECONDS", 0.3)
    assert run(str(model), ["gsm8k"], {"gsm8k": problems}, url="http://127.0.0.1:9") == ExitCode.FAILED
    shown = capsys.readouterr()
    assert "waiting for rollout servers for 0 s: http://127.0.0.1:9" in shown.out
    assert "no rollout server came up within 0.3 s" in shown.err
