"""Real runs for benchmarks: the quickstart with changes, carried out by `seele run`, kept, and gone on with after a stop."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import yaml

from methods_study.design import merged

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"
PACKAGES = ("seele", "torch", "deepspeed", "transformers", "vllm")
INTERRUPTED = 130
"""Exit code of `seele run` after Ctrl-C."""


class TrainingFailed(RuntimeError):
    """A run ended before its last step. The message names it and its log."""


class Stopped(RuntimeError):
    """The user stopped the benchmark; the run that was under way has saved itself."""


def quickstart(problems: Path, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The quickstart's SeeleRun under another name, with `changes` to its spec and the problems of a folder."""
    run = deepcopy(_quickstart(str(problems)))
    run["metadata"]["name"] = name
    run["spec"] = merged(run["spec"], changes)
    return run


@cache
def _quickstart(problems: str) -> dict[str, Any]:
    run: dict[str, Any] = yaml.safe_load(QUICKSTART.read_text(encoding="utf-8").replace(".cache/quickstart", problems))
    return run


def is_finished(folder: Path) -> bool:
    """Whether the folder holds a run that has trained to its end."""
    return (folder / "final").is_dir()


def is_begun(folder: Path) -> bool:
    """Whether the folder holds a run, finished or not."""
    return (folder / "config.yaml").is_file()


def train(manifest: Mapping[str, Any], folder: Path) -> None:
    """Train in `folder`, or go on there, or do nothing where the run is finished. Raises TrainingFailed and Stopped.

    What the run says is in `<folder>.log`.
    """
    if is_finished(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    file, log = folder.with_name(f"{folder.name}.yaml"), folder.with_name(f"{folder.name}.log")
    file.write_text(yaml.safe_dump(dict(manifest)), encoding="utf-8")
    command = [sys.executable, "-m", "seele_operator.cli", "run", "-f", str(file), "--out", str(folder)]
    with log.open("ab") as output:
        code = _passing_signals_on(command, output.fileno())
    if code == INTERRUPTED:
        raise Stopped
    if code or not is_finished(folder):
        raise TrainingFailed(f"{folder.name} ended with exit code {code}: {_last_line(log)} (all of it is in {log})")


def _passing_signals_on(command: list[str], output: int) -> int:
    """Run a command to its end; Ctrl-C and SIGTERM reach it as SIGINT, on which it saves itself."""
    stopped = False
    child: subprocess.Popen[bytes] | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        if child is not None:
            child.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        # A process group of its own: the terminal's Ctrl-C would reach it a second time, which means to stop at once.
        child = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        if stopped:  # while it was being started
            child.send_signal(signal.SIGINT)
        code = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return INTERRUPTED if stopped else code


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


@cache
def versions() -> dict[str, str]:
    """Versions of what trains, those packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            # vLLM has another name where it is built for machines without a GPU.
            try:
                found[package] = version(f"{package}-cpu")
            except PackageNotFoundError:
                continue
    return found


def machine() -> dict[str, str | int]:
    """What it was trained on."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "memoryGiB": round(psutil.virtual_memory().total / 2**30),
    }
