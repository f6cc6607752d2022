"""`seele run`: executes a SeeleRun file on this machine, from validation to the summary."""

import importlib.util
import shlex
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import BadRunError
from seele_operator.local.executor import run_locally
from seele_operator.local.folder import open_run_folder
from seele_operator.local.ports import NoFreePort
from seele_operator.local.translate import CannotRunHere
from seele_operator.plan.objects import config_text, plan
from seele_operator.validation.load import validate_file
from seele_trainer.formatting import clock, percent
from seele_trainer.run_folder.checkpoint import DAMAGED_SUFFIX, newest_step
from seele_trainer.run_folder.journal import JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord
from seele_trainer.termination import ExitCode

RUNS = Path("runs")
"""The folder, in the working directory, for runs without `--out`."""


def run_command(file: str, out: Path | None, verbose: bool) -> ExitCode:
    """Validate, create the folder, execute, and print a summary. Raises BadRunError with nothing left behind."""
    run = validate_file(file)
    missing = missing_packages(run)
    if missing:
        raise BadRunError(missing)
    path = out or RUNS / f"{run.metadata.name}-{datetime.now():%Y%m%d-%H%M%S}"
    console = Console(highlight=False)
    began = time.monotonic()
    with open_run_folder(path, config_text(run)) as folder:
        line = f"resuming {path} (start {folder.attempt})" if folder.resumed else f"run folder: {path}"
        console.print(Text(line), soft_wrap=True)
        try:
            outcome = run_locally(plan(run, folder.attempt), path, verbose=verbose, lock=folder.lock)
        except (CannotRunHere, NoFreePort) as error:
            raise BadRunError([str(error)]) from error
    again = f"seele run -f {shlex.quote(file)} --out {shlex.quote(str(path))}"
    for line in summary(path, outcome, again, time.monotonic() - began):
        console.print(Text(line), soft_wrap=True)
    return outcome


def missing_packages(run: SeeleRun) -> list[str]:
    """A line for each package that `run` needs and this machine lacks."""
    needed = {"torch": "trainer", "deepspeed": "trainer"}
    if run.spec.rollout.engine == "vllm":
        needed["vllm"] = "rollout-cpu"
    return [
        f"{package} is not installed here; run `make quickstart` once, or pip install '.[{extra}]' in a checkout"
        for package, extra in needed.items()
        if importlib.util.find_spec(package) is None
    ]


def summary(path: Path, outcome: ExitCode, again: str, seconds: float) -> list[str]:
    """The lines at the end of a run; `again` is the command that resumes it."""
    if outcome in (ExitCode.INTERRUPTED, ExitCode.FAILED):
        failed = f"The run failed; logs are in {path / 'logs'}."
        return [f"{failed if outcome is ExitCode.FAILED else 'Stopped.'} {_how_to_go_on(path, again)}"]
    report = path / "report.html"
    return [
        f"Done in {clock(seconds)}.",
        *_results(path / "eval.jsonl"),
        f"Report: {report}" if report.exists() else f"For a report: seele report {shlex.quote(str(path))}",
    ]


def _how_to_go_on(path: Path, again: str) -> str:
    step = newest_step(path / "checkpoints")
    if step is None and any(path.glob(f"checkpoints/step-*{DAMAGED_SUFFIX}*")):
        return f"All its checkpoints are damaged. Once one is restored from a backup: {again}"
    if step is None:
        return f"No step is saved. To start again from the beginning, with a changed file if need be: {again}"
    return f"Step {step} is saved. To resume after it: {again}"


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
        f"{title}: {percent(first[title].greedy_accuracy)} → {percent(score.greedy_accuracy)} "
        f"of {score.problems} problems solved without hints (greedy)"
        for title, score in last.items()
        if title in first
    ]
