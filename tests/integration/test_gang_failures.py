"""A rank that fails ends its whole gang at once, and its own message is seen."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tests.support import REPOSITORY

pytestmark = pytest.mark.integration

VOCABULARY = 8


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=VOCABULARY, num_key_value_heads=1, **sizes)).save_pretrained(folder)
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)


@pytest.mark.parametrize(
    ("what", "failing_rank", "words"),
    [
        ("export", "0", "WeightExportError: cannot write the model folder"),
        ("save", "0", "CheckpointError: cannot write checkpoint"),
        ("save", "1", "CheckpointError: cannot write checkpoint"),
    ],
)
def test_a_rank_that_runs_out_of_disk_leaves_no_other_waiting(
    tmp_path: Path, what: str, failing_rank: str, words: str
) -> None:
    save_model(tmp_path / "tied")
    worker = ("-m", "tests.integration.gang_failure_worker")
    launch = "import sys; from seele_trainer.main import launch; sys.exit(launch(sys.argv[1:]))"
    arguments = ["-c", launch, "--standalone", "--nproc-per-node=2", *worker]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, *arguments, what, failing_rank, str(tmp_path)],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=90)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1, output[-3000:]
    assert words in output
    assert "ChildFailedError" not in output
