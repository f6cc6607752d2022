"""Starting whole runs as a user does, from a SeeleRun file to the run's folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support import REPOSITORY

QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    result = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def write_run(folder: Path, spec: Mapping[str, Any]) -> Path:
    """The quickstart's SeeleRun with changes to its spec, as a file in `folder`."""
    run = yaml.safe_load(QUICKSTART.read_text())
    run["spec"] = merged(run["spec"], spec)
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(run))
    return path


def start(run: Path, out: Path) -> subprocess.Popen[str]:
    """`seele run`, not waited for; its output goes into `out`'s neighbour."""
    command = [sys.executable, "-m", "seele_operator.cli", "run", "-f", str(run), "--out", str(out), "--verbose"]
    return _start(command, out)


def start_quickstart(out: Path) -> subprocess.Popen[str]:
    """The README's first command, not waited for."""
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
    """Wait for the end of a run; its console goes into the failure of a test that did not expect the exit code."""
    try:
        return process.wait(seconds)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
        print(out.with_suffix(".console").read_text()[-6000:])


def records(out: Path, name: str) -> list[dict[str, Any]]:
    """The lines of one of the run's .jsonl files; none where there is no file yet, and no torn last line."""
    path = out / name
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def held_out(out: Path) -> list[float]:
    """Held-out greedy accuracy without hints, by evaluation."""
    return [record["scores"]["held-out"]["greedyAccuracy"] for record in records(out, "eval.jsonl")]
