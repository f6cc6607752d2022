"""Starts whole runs as a user does, and reads what they leave in their folder."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support import REPOSITORY
from tests.support.spec_data import patched

QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"


def write_run(folder: Path, spec: Mapping[str, Any]) -> Path:
    """Write the quickstart's SeeleRun with changes to its spec to a file in `folder`."""
    run = yaml.safe_load(QUICKSTART.read_text())
    run["spec"] = patched(run["spec"], spec)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start(run: Path, out: Path) -> subprocess.Popen[str]:
    """Start `seele run`; its output goes to a file next to `out`."""
    command = [sys.executable, "-m", "seele_operator.cli", "run", "-f", str(run), "--out", str(out), "--verbose"]
    return _start(command, out)


def start_quickstart(out: Path) -> subprocess.Popen[str]:
    """Start the README's first command."""
    return _start(["make", "quickstart", f"OUT={out}"], out)


def _start(command: Sequence[str], out: Path) -> subprocess.Popen[str]:
    console = out.with_suffix(".console").open("a")
    return subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        stdout=console,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str], out: Path, seconds: float = 800) -> int:
    """Wait for the end of a run and return its exit code; a failed test shows its output."""
    try:
        return process.wait(seconds)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        print(out.with_suffix(".console").read_text()[-6000:])


def records(out: Path, name: str) -> list[dict[str, Any]]:
    """The complete lines of one of the run's .jsonl files; empty if the file does not exist yet."""
    path = out / name
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def leftovers(out: Path) -> list[str]:
    """Command lines of processes that still belong to a run's folder."""
    return [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("SEELE_RUN_DIR") == str(out)
        or any(str(out) in part for part in process.info["cmdline"] or ())
    ]


def held_out(out: Path) -> list[float]:
    """Held-out greedy accuracy without hints, by evaluation."""
    return [record["scores"]["held-out"]["greedyAccuracy"] for record in records(out, "eval.jsonl")]
