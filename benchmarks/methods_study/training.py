"""Real runs for benchmarks: the quickstart with changes, trained by `seele run`, kept, and resumed after a stop."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from copy import deepcopy
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil
import yaml

from tests.support.spec_data import patched

REPOSITORY = Path(__file__).resolve().parents[2]
QUICKSTART = REPOSITORY / "manifests" / "examples" / "quickstart.yaml"
PACKAGES = ("seele", "torch", "deepspeed", "transformers", "vllm")
INTERRUPTED = 130
"""Exit code of `seele run` after Ctrl-C."""
POLL_SECONDS = 0.2


class BadOption(RuntimeError):
    """An option has an invalid value. The message names it and the valid ones."""


class TrainingFailed(RuntimeError):
    """A run ended before its last step. The message names it and its log."""


class Stopped(RuntimeError):
    """The user stopped the benchmark; the current runs have saved themselves."""


def quickstart(problems: Path, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The quickstart's SeeleRun under another name, with `changes` to its spec and the problems of a folder."""
    run = deepcopy(_quickstart(str(problems)))
    run["metadata"]["name"] = name
    run["spec"] = patched(run["spec"], changes)
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


class Trainings:
    """Runs in progress. Ctrl-C, SIGTERM and leaving the `with` send each of them SIGINT, on which it saves itself.

    Must be used in the main thread, the only one that can handle signals.
    """

    def __init__(self) -> None:
        self._under_way: dict[Path, subprocess.Popen[bytes]] = {}
        self._interrupted: set[Path] = set()
        self._stopped = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        self._interrupt()
        for child in self._under_way.values():
            child.wait()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def begin(self, manifest: Mapping[str, Any], folder: Path) -> None:
        """Start or resume a training in `folder`; its output goes to `<folder>.log`."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(f"{folder.name}.yaml")
        file.write_text(yaml.safe_dump(dict(manifest)), encoding="utf-8")
        self._start(folder, [sys.executable, "-m", "seele_operator.cli", "run", "-f", str(file), "--out", str(folder)])

    def ended(self) -> Path:
        """Wait for a run to finish and return its folder. Raises TrainingFailed or Stopped."""
        while not self._stopped:
            for folder, child in self._under_way.items():
                code = child.poll()
                if code is not None:
                    del self._under_way[folder]
                    return self._checked(folder, code)
            time.sleep(POLL_SECONDS)
        raise Stopped

    def _checked(self, folder: Path, code: int) -> Path:
        if self._stopped or code == INTERRUPTED:
            raise Stopped
        if code or not is_finished(folder):
            log = _log(folder)
            raise TrainingFailed(f"{folder.name} ended with exit code {code}: {_last_line(log)} (full log: {log})")
        return folder

    def _start(self, folder: Path, command: list[str]) -> None:
        with _log(folder).open("ab") as output:
            # Its own process group: otherwise the terminal's Ctrl-C would reach it a second time, which stops it at once.
            self._under_way[folder] = subprocess.Popen(
                command,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                process_group=0,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},
            )
        if self._stopped:  # while it was being started
            self._interrupt()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if self._stopped:
            # The second signal is for runs that are still saving themselves.
            self._interrupted.clear()
        self._stopped = True
        self._interrupt()

    def _interrupt(self) -> None:
        """Send SIGINT to each run once: a second one ends it without saving."""
        for folder, child in self._under_way.items():
            if folder not in self._interrupted:
                self._interrupted.add(folder)
                child.send_signal(signal.SIGINT)


def train(manifest: Mapping[str, Any], folder: Path) -> None:
    """Start or resume a training in `folder` unless it is finished. Raises TrainingFailed and Stopped."""
    if is_finished(folder):
        return
    with Trainings() as one:
        one.begin(manifest, folder)
        one.ended()


def _log(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.log")


def _last_line(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it printed nothing"


@cache
def versions() -> dict[str, str]:
    """Versions of the packages that train, if installed."""
    found = {}
    for package in PACKAGES:
        for name in (f"{package}-cpu", package):  # vLLM has another name when built for machines without a GPU
            with suppress(PackageNotFoundError):
                found[package] = version(name)
    return found


def revision() -> str | None:
    """The commit of this checkout, with a `+` if files were changed; None outside a checkout."""
    try:
        commit, changed = (
            subprocess.run(
                ["git", *command], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30
            ).stdout.strip()
            for command in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def machine() -> dict[str, str | int]:
    """The machine it was trained on."""
    return {
        "architecture": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count() or 1,
        "memoryGiB": round(psutil.virtual_memory().total / 2**30),
    }
