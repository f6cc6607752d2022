"""Trains several runs in one process, because starting a process takes longer than these runs.

The run in each given folder is trained from beginning to end. A copy of the folder is then reset to an early checkpoint, as
if the run had been killed there, and trained again.
"""

import os
import shutil
import sys
import time
from pathlib import Path

from seele_trainer.main import train

KILLED_AFTER = 2
"""Steps that the copy keeps."""


def train_in(folder: Path, attempt: int) -> None:
    """One attempt at the run in a folder; ends the process if it fails."""
    os.environ.update(SEELE_RUN_DIR=str(folder), SEELE_ATTEMPT=str(attempt), SEELE_HTTP_PORT="0")
    began = time.monotonic()
    code = train(folder / "config.yaml")
    print(f"{folder.name}, attempt {attempt}: {time.monotonic() - began:.1f} s", flush=True)
    if code != 0:
        sys.exit(code)


def kill_after(folder: Path, step: int) -> None:
    """Reset a finished run to what a kill right after the checkpoint of `step` would have left."""
    for checkpoint in (folder / "checkpoints").glob("step-*"):
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    (folder / "checkpoints" / "LATEST").write_text(f"step-{step}")
    shutil.rmtree(folder / "final")


def main(folders: list[Path]) -> None:
    for folder in folders:
        train_in(folder, attempt=1)
        resumed = folder.with_name(f"{folder.name}-resumed")
        shutil.copytree(folder, resumed)
        kill_after(resumed, KILLED_AFTER)
        train_in(resumed, attempt=2)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
