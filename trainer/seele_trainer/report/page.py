"""Writes a run's report: pictures and one HTML page that needs nothing else, from the files of the run's folder alone."""

from __future__ import annotations

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seele_trainer.report.plots import PLOTS, Plot
from seele_trainer.report.problems import UnknownProblemError, problems_plot
from seele_trainer.report.style import DARK, LIGHT
from seele_trainer.report.summary import stages, summarise_run
from seele_trainer.run_folder.config_file import CONFIG_FILE, ConfigError, read_tree
from seele_trainer.run_folder.durable import write_file
from seele_trainer.run_folder.journal import JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord, SampleRollout, StepRecord

logger = logging.getLogger(__name__)


class ReportError(RuntimeError):
    """A folder holds nothing to report on. The message says what is missing."""


@dataclass(frozen=True)
class Picture:
    """A plot as data URIs, for light and for dark backgrounds."""

    plot: Plot
    light: Markup
    dark: Markup


@dataclass(frozen=True)
class RunConfig:
    """What a report takes from config.yaml: the text as it stands, and the few fields that its head names."""

    text: str
    name: str
    planned: int | None
    strategy: str | None
    model: str | None


def write_report(run_dir: Path, problems: Sequence[str] = ()) -> Path:
    """Write report.html and its pictures into a run's folder, also while it runs; returns the page's path.

    Reads metrics.jsonl and, where they are there, eval.jsonl, rollouts.jsonl, config.yaml and the last checkpoint's
    state, of which it draws the named problems, or a few telling ones. Raises ReportError where there is no step to
    report on, a named problem is not known, or a file cannot be read or written.
    """
    try:
        return _write_report(run_dir, problems)
    except OSError as error:
        raise ReportError(
            f"{error.filename or run_dir}: {error.strerror or error}; a report needs to read and write the run's folder"
        ) from error


def _write_report(run_dir: Path, problems: Sequence[str]) -> Path:
    try:
        steps = read_records(run_dir / "metrics.jsonl", StepRecord)
        evaluations = read_records(run_dir / "eval.jsonl", EvaluationRecord)
        samples = read_records(run_dir / "rollouts.jsonl", SampleRollout)
    except JournalError as error:
        raise ReportError(str(error)) from error
    if not (run_dir / "metrics.jsonl").exists():
        raise ReportError(f"{run_dir} has no metrics.jsonl: give the folder of a run, such as runs/quickstart-…")
    if not steps:
        raise ReportError(f"{run_dir / 'metrics.jsonl'} has no steps yet: wait for the first one")
    try:
        of_problems = problems_plot(run_dir, steps[-1].target_accuracy, problems)
    except UnknownProblemError as error:
        raise ReportError(str(error)) from error
    plots = [*PLOTS, *([of_problems] if of_problems else [])]
    page = _page(
        run=_read_config(run_dir),
        summary=summarise_run(steps, evaluations),
        pictures=[_picture(run_dir, plot, steps, evaluations) for plot in plots if plot.shown(steps)],
        stages=stages(samples),
    )
    path = run_dir / "report.html"
    # Replaced atomically: a browser never loads half a page.
    write_file(path, page)
    return path


def percent(value: float | None) -> str:
    """A share as a whole percentage, with a decimal below 10 %."""
    if value is None:
        return "–"
    return f"{100 * value:.0f}%" if abs(value) >= 0.0995 or value == 0 else f"{100 * value:.1f}%"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def amount(count: int) -> str:
    """A count with three digits and a unit."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= limit:
            scaled = count / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g} {unit}" if scaled < 1000 else f"{scaled:.0f} {unit}"
    return f"{count:,}".replace(",", " ")


def _page(**content: object) -> str:
    environment = Environment(
        loader=PackageLoader("seele_trainer.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, points=points, duration=duration, amount=amount)
    return environment.get_template("report.html.j2").render(**content)


def _picture(run_dir: Path, plot: Plot, steps: list[StepRecord], evaluations: list[EvaluationRecord]) -> Picture:
    light = plot.png(LIGHT, steps, evaluations)
    (run_dir / f"{plot.name}.png").write_bytes(light)
    return Picture(plot, _data_uri(light), _data_uri(plot.png(DARK, steps, evaluations)))


def _data_uri(png: bytes) -> Markup:
    return Markup("data:image/png;base64," + base64.b64encode(png).decode())


def _read_config(run_dir: Path) -> RunConfig:
    """A report is worth having whatever has become of config.yaml, so what is not there is left out."""
    path = run_dir / CONFIG_FILE
    text, tree = "", {}
    if path.exists():
        text = path.read_text(encoding="utf-8", errors="replace")
        try:
            tree = read_tree(path)
        except ConfigError as error:
            logger.warning("%s", error)

    def field(*keys: str) -> object:
        value: object = tree
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    planned, strategy, model = field("training", "steps"), field("training", "strategy"), field("model", "name")
    return RunConfig(
        text=text,
        name=str(field("name") or run_dir.resolve().name),
        planned=planned if isinstance(planned, int) else None,
        strategy=str(strategy) if strategy else None,
        model=str(model) if model else None,
    )
