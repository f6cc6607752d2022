"""A model that cannot be loaded is named in one line with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seele_trainer.assemble import context_length, load_tokenizer
from seele_trainer.config import Model
from seele_trainer.termination import RefusedInput
from seele_trainer.weights.prepare import BadModelError

pytestmark = pytest.mark.unit


def test_a_model_that_does_not_exist_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        BadModelError, match=r"^model.name is 'nowhere/nothing', whose .* cannot be loaded: "
    ) as refused:
        load_tokenizer(Model(name="nowhere/nothing"))
    assert "\n" not in str(refused.value)
    assert isinstance(refused.value, RefusedInput)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BadModelError, match="whose tokenizer cannot be loaded: "):
        load_tokenizer(Model(name=str(tmp_path)))


def test_the_context_length_of_the_run_comes_first_then_that_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 64}))
    assert context_length(Model(name=str(tmp_path))) == 64
    assert context_length(Model(name=str(tmp_path), context_length=32)) == 32


def test_a_model_without_a_limit_needs_one_in_the_run(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    with pytest.raises(BadModelError, match=r"has no max_position_embeddings: set model.contextLength"):
        context_length(Model(name=str(tmp_path)))
