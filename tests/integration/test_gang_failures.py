"""A rank that fails ends its whole gang at once with its own message."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.learner_cases import environment
from tests.support import REPOSITORY
from tests.support.small_models import save_llama, save_tokenizer


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
    save_llama(tmp_path / "tied", seed=0, tied=True)
    save_tokenizer(tmp_path / "tied")
    worker = ("-m", "tests.integration.gang_failure_worker")
    launch = "import sys; from seele_trainer.main import launch; sys.exit(launch(sys.argv[1:]))"
    arguments = ["-c", launch, "--standalone", "--nproc-per-node=2", *worker]
    process = subprocess.Popen(
        [sys.executable, *arguments, what, failing_rank, str(tmp_path)],
        cwd=REPOSITORY,
        env=environment(),
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
