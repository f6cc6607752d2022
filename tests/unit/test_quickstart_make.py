"""The quickstart's base model and problems are made once, whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from seele_trainer.quickstart.__main__ import Recipe, make

pytestmark = pytest.mark.unit

TINY = Recipe(training_problems=8, test_problems=4, updates=2, batch=4)


def rows(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_what_is_made_can_be_loaded_and_keeps_the_sets_apart(tmp_path: Path) -> None:
    make(tmp_path / "quickstart", TINY)
    train, test = rows(tmp_path / "quickstart" / "train.jsonl"), rows(tmp_path / "quickstart" / "test.jsonl")
    assert (len(train), len(test)) == (8, 4)
    assert not {row["problem"] for row in train} & {row["problem"] for row in test}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "quickstart" / "base")
    text = train[0]["problem"] + "\n" + train[0]["solution"]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "quickstart" / "base").num_parameters() < 500_000


def test_the_same_recipe_is_reused_and_another_made_anew(tmp_path: Path) -> None:
    out = tmp_path / "quickstart"
    make(out, TINY)
    first = (out / "base" / "model.safetensors").stat().st_mtime_ns
    make(out, TINY)
    assert (out / "base" / "model.safetensors").stat().st_mtime_ns == first
    make(out, Recipe(training_problems=8, test_problems=4, updates=1, batch=4))
    assert (out / "base" / "model.safetensors").stat().st_mtime_ns != first


def test_a_training_that_is_broken_off_leaves_nothing_that_looks_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object, **__: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr("seele_trainer.quickstart.base_model.train_base_model", broken_off)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "quickstart", TINY)
    assert not (tmp_path / "quickstart").exists()
