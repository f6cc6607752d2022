"""A model folder that the learner exports is used as the model it came from is."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tests.integration.learner_cases import Case
from tests.support import REPOSITORY

pytestmark = pytest.mark.integration

VOCABULARY = 64
ENDS = [3, 5]
"""Tokens that end a completion; the tokenizer knows the first only, as with many chat models."""


def test_an_export_keeps_the_ends_of_a_completion_and_says_its_dtype(tmp_path: Path) -> None:
    source = tmp_path / "tied"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=1, eos_token_id=ENDS[0], **sizes))
    model.generation_config.eos_token_id = ENDS
    model.to(torch.bfloat16).save_pretrained(source)
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=f"w{ENDS[0]}").save_pretrained(source)
    # Trained in float32, although the model came in bfloat16.
    (tmp_path / "cases").write_bytes(pickle.dumps([Case("case", samples="none", updates=0)]))
    (tmp_path / "none.samples").write_bytes(pickle.dumps([]))

    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    command = [sys.executable, "-m", "tests.integration.learner_worker", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]

    assert json.loads((tmp_path / "case" / "generation_config.json").read_text())["eos_token_id"] == ENDS
    assert json.loads((tmp_path / "case" / "config.json").read_text())["dtype"] == "float32"
