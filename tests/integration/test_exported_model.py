"""A model folder exported by the learner keeps the settings of the original model."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import torch

from tests.integration.learner_cases import Case, environment
from tests.support import REPOSITORY
from tests.support.small_models import EOS, save_llama, save_tokenizer

ENDS = [EOS, 5]
"""Tokens that end a completion. As with many chat models, the tokenizer only has the first."""


def test_an_export_keeps_the_ends_of_a_completion_and_declares_its_dtype(tmp_path: Path) -> None:
    source = tmp_path / "tied"
    model = save_llama(source, seed=0, tied=True, dtype=torch.bfloat16)
    model.generation_config.eos_token_id = ENDS
    model.save_pretrained(source)
    save_tokenizer(source, eos_token=f"w{EOS}")
    # Trained in float32, although the original is in bfloat16.
    (tmp_path / "cases").write_bytes(pickle.dumps([Case("case", samples="none", updates=0)]))
    (tmp_path / "none.samples").write_bytes(pickle.dumps([]))

    command = [sys.executable, "-m", "tests.integration.learner_worker", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]

    assert json.loads((tmp_path / "case" / "generation_config.json").read_text())["eos_token_id"] == ENDS
    assert json.loads((tmp_path / "case" / "config.json").read_text())["dtype"] == "float32"
