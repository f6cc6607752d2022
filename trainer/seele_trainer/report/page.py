"""Writes a run's report, one self-contained HTML page and its pictures, from the files in the run's folder."""

import base64
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seele_trainer.formatting import amount, duration, percent
from seele_trainer.report.plots import PLOTS, Plot
from seele_trainer.report.problems import UnknownProblemError, problems_plot
from seele_trainer.report.style import DARK, LIGHT
from seele_trainer.report.summary import stages, summarise_run
from seele_trainer.run_folder.attempt import CONFIG_FILE, ConfigError, read_tree
from seele_trainer.run_folder.durable import write_file
from seele_trainer.run_folder.journal import JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord, SampleRollout, StepRecord

logger = logging.getLogger(__name__)


class ReportError(RuntimeError):
    """No report can be written. The message says what is missing."""


@dataclass(frozen=True)
class Picture:
    """A plot as data URIs, for light and for dark backgrounds."""

    plot: Plot
    light: Markup
    dark: Markup


@dataclass(frozen=True)
class RunConfig:
    """What a report shows of config.yaml: the text, and the fields in the header."""

    text: str
    name: str
    planned: int | None
    strategy: str | None
    model: str | None


def write_report(run_dir: Path, problems: Sequence[str] = ()) -> Path:
    """Write report.html and its pictures to a run's folder, even while the run continues; returns the page's path.

    Reads metrics.jsonl and, if they exist, eval.jsonl, rollouts.jsonl, config.yaml and the state in the last checkpoint,
    which has the posteriors of the named problems (by default, of a few between the hardest and the easiest). Raises
    ReportError if no step is finished, a problem is unknown, or a file cannot be read or written.
    """
    try:
        return _write_report(run_dir, problems)
    except (JournalError, UnknownProblemError) as error:
        raise ReportError(str(error)) from error
    except OSError as error:
        raise ReportError(
            f"{error.filename or run_dir}: {error.strerror or error}; a report needs to read and write the run's folder"
        ) from error


def _write_report(run_dir: Path, problems: Sequence[str]) -> Path:
    steps = read_records(run_dir / "metrics.jsonl", StepRecord)
    evaluations = read_records(run_dir / "eval.jsonl", EvaluationRecord)
    samples = read_records(run_dir / "rollouts.jsonl", SampleRollout)
    if not (run_dir / "metrics.jsonl").exists():
        raise ReportError(f"{run_dir} has no metrics.jsonl: give the folder of a run, such as runs/quickstart-…")
    if not steps:
        raise ReportError(f"{run_dir / 'metrics.jsonl'} has no steps yet: wait for the first one")
    of_problems = problems_plot(run_dir, steps[-1].target_accuracy, problems)
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


def points(value: float) -> str:
    """A difference of shares in percentage points, signed."""
    return f"{100 * value:+.1f}".replace("-", "−")


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
    """A missing or damaged config.yaml only costs the report its fields."""
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
