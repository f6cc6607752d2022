"""`seele run`: a SeeleRun file carried out on this machine, from validation to the summary."""

from __future__ import annotations

import importlib.util
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from seele_operator.api.problems import BadRunError
from seele_operator.api.seelerun import SeeleRun
from seele_operator.local.display import duration
from seele_operator.local.executor import Outcome, run_locally
from seele_operator.local.folder import open_run_folder
from seele_operator.local.ports import NoFreePort
from seele_operator.local.translate import CannotRunHere
from seele_operator.plan.objects import config_text, plan
from seele_operator.validation.load import validate_file
from seele_trainer.run_folder.journal import JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord

RUNS = Path("runs")
"""Where folders of runs are made that are not given one, below the working directory."""


def run_command(file: str, out: Path | None, verbose: bool) -> Outcome:
    """Validate, make the folder, execute, and say how it ended. Raises BadRunError with nothing left behind."""
    run = validate_file(file)
    missing = missing_packages(run)
    if missing:
        raise BadRunError(missing)
    path = out or RUNS / f"{run.metadata.name}-{datetime.now():%Y%m%d-%H%M%S}"
    console = Console(highlight=False)
    began = time.monotonic()
    with open_run_folder(path, config_text(run)) as folder:
        verb = f"going on with {path} (start {folder.attempt})" if folder.resumed else f"run folder: {path}"
        console.print(Text(verb), soft_wrap=True)
        try:
            outcome = run_locally(plan(run, folder.attempt), path, verbose=verbose, lock=folder.lock)
        except (CannotRunHere, NoFreePort) as error:
            raise BadRunError([str(error)]) from error
    again = f"seele run -f {shlex.quote(file)} --out {shlex.quote(str(path))}"
    for line in summary(path, outcome, again, time.monotonic() - began):
        console.print(Text(line), soft_wrap=True)
    return outcome


def missing_packages(run: SeeleRun) -> list[str]:
    """What this machine lacks to carry out `run` without a cluster, one line each."""
    needed = {"torch": "trainer", "deepspeed": "trainer"}
    if run.spec.rollout.engine == "vllm":
        needed["vllm"] = "rollout-cpu"
    return [
        f"{package} is not installed here: run `make quickstart` once, or pip install 'seele[{extra}]'"
        for package, extra in needed.items()
        if importlib.util.find_spec(package) is None
    ]


def summary(path: Path, outcome: Outcome, again: str, seconds: float) -> list[str]:
    """What is said at the end of a run; `again` is the command that goes on with it."""
    if outcome is Outcome.INTERRUPTED:
        return [f"Stopped. To go on from the last checkpoint: {again}"]
    if outcome is Outcome.FAILED:
        return [f"The run failed; logs are in {path / 'logs'}. To go on from the last checkpoint: {again}"]
    report = path / "report.html"
    return [
        f"Done in {duration(seconds)}.",
        *_results(path / "eval.jsonl"),
        f"Report: {report}" if report.exists() else f"For a report: seele report {shlex.quote(str(path))}",
    ]


def _results(path: Path) -> list[str]:
    try:
        return accuracies(read_records(path, EvaluationRecord))
    except JournalError as error:
        return [str(error)]


def accuracies(records: Sequence[EvaluationRecord]) -> list[str]:
    """Held-out accuracy before and after, a line for each benchmark."""
    if not records:
        return []
    first, last = records[0].scores, records[-1].scores
    return [
        f"{title}: {first[title].greedy_accuracy:.1%} → {score.greedy_accuracy:.1%} "
        f"of {score.problems} problems solved without hints (greedy)"
        for title, score in last.items()
        if title in first
    ]
