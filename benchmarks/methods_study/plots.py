"""The plots of docs/benchmarks.md as SVG, for light and dark backgrounds; the same JSON always gives the same text."""

import io
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from benchmarks.methods_study.gains import MIDDLES, bound, step_gains
from benchmarks.methods_study.results import SettingResult, Study
from seele_trainer.report.style import DARK, LIGHT, Theme, legend, percent_axis, style

Draw = Callable[[Figure, Theme, Study], None]
THEMES = {"light": LIGHT, "dark": DARK}
DASHES = ("-", (0, (4, 2)))
"""The second dash is for methods beyond the number of hues."""


def pictures(study: Study, longer: Study | None = None) -> dict[str, Callable[[], str]]:
    """Drawing functions by file name, for the parts that were run and for the targets on longer chains."""
    drawn: dict[str, tuple[str, Draw, tuple[float, float]]] = {
        "methods": ("methods", draw_methods, (7.2, 4.0)),
        "rounds-by-target": ("targets", draw_rounds, (7.2, 4.4)),
        "final-by-target": ("targets", draw_targets, (5.1, 3.1)),
        "estimators": ("estimators", draw_estimators, (7.2, 3.1)),
    }
    if step_gains(study):
        drawn["identity"] = ("targets", draw_identity, (5.1, 3.4))
    wanted = [(name, study, draw, size) for name, (part, draw, size) in drawn.items() if study.part(part)]
    if longer is not None:
        wanted.append(("rounds-by-target-longer", longer, draw_rounds, (7.2, 4.4)))
    return {
        f"{name}-{scheme}.svg": _svg(of, draw, size, theme)
        for name, of, draw, size in wanted
        for scheme, theme in THEMES.items()
    }


def _svg(study: Study, draw: Draw, size: tuple[float, float], theme: Theme) -> Callable[[], str]:
    def text() -> str:
        # Text stays text and ids are salted: the file is small and reproducible.
        with mpl.rc_context({**style(theme), "svg.fonttype": "none", "svg.hashsalt": "seele"}):
            figure = Figure(figsize=size, layout="constrained")
            FigureCanvasSVG(figure)
            draw(figure, theme, study)
            out = io.StringIO()
            figure.savefig(out, format="svg", facecolor=theme.paper, metadata={"Date": None, "Creator": None})
        return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"

    return text


def draw_methods(figure: Figure, theme: Theme, study: Study) -> None:
    """Held-out accuracy over the training: mean over seeds, with a band from the lowest to the highest seed."""
    axes = figure.add_subplot()
    for index, setting in enumerate(study.part("methods")):
        curves = np.array([run.held_out for run in setting.runs])
        steps, colour = setting.runs[0].evaluated_at, theme.hues[index % len(theme.hues)]
        axes.plot(
            steps, curves.mean(axis=0), color=colour, linestyle=DASHES[index // len(theme.hues)], label=setting.name
        )
        axes.fill_between(steps, curves.min(axis=0), curves.max(axis=0), color=colour, alpha=0.13, linewidth=0)
    percent_axis(axes)
    axes.set_xlabel("step")
    legend(axes, 4)


def draw_rounds(figure: Figure, theme: Theme, study: Study) -> None:
    """Accuracy with hints by round, a small plot for each target."""
    results = study.part("targets")
    grid = figure.subplots(2, (len(results) + 1) // 2, sharex=True, sharey=True, squeeze=False)
    for axes, setting in zip(grid.flat, results, strict=False):
        _by_round(axes, theme, setting, study.steps)
        axes.axhline(setting.target, color=theme.ink, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_title(setting.name)
    for axes in grid.flat[len(results) :]:
        axes.set_axis_off()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def draw_targets(figure: Figure, theme: Theme, study: Study) -> None:
    """Final accuracy without hints by target, with confidence intervals; seeds are dots."""
    axes, results = figure.add_subplot(), study.part("targets")
    targets, finals = [setting.target for setting in results], [setting.after for setting in results]
    axes.errorbar(
        targets,
        [one.mean for one in finals],
        yerr=[one.half or 0.0 for one in finals],
        color=theme.hues[0],
        marker="o",
        capsize=3,
    )
    for target, setting in zip(targets, results, strict=True):
        after = [run.after for run in setting.runs]
        axes.plot([target] * len(after), after, ".", color=theme.faint, markersize=4)
    percent_axis(axes)
    # These are points, not bars: an axis from zero would only flatten them.
    axes.set_ylim(bottom=max(0.0, np.floor(10 * min(one.mean - (one.half or 0.0) for one in finals)) / 10))
    axes.set_xticks(targets)
    axes.set_xlabel("target accuracy")


def draw_identity(figure: Figure, theme: Theme, study: Study) -> None:
    """Mean descent of single steps by accuracy, each scaled so that its best-fitting c·a(1 - a) peaks at 1."""
    axes = figure.add_subplot()
    at = np.linspace(0, 1, 101)
    axes.plot(at, 4 * bound(at), color=theme.ink, linewidth=1.1, linestyle=(0, (4, 3)), label="4a(1 − a)")
    for index, one in enumerate(step_gains(study)):
        colour = theme.hues[index % len(theme.hues)]
        axes.plot(
            MIDDLES[one.known], 4 * one.means[one.known] / one.scale, "o-", color=colour, label=f"step {one.step}"
        )
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy a of the problem's rollouts")
    legend(axes, 3)


def draw_estimators(figure: Figure, theme: Theme, study: Study) -> None:
    """Accuracy by round over the training, one plot for each estimator."""
    results = study.part("estimators")
    grid = figure.subplots(1, len(results), sharey=True, squeeze=False)
    for axes, setting in zip(grid.flat, results, strict=True):
        _by_round(axes, theme, setting, study.steps)
        axes.axhline(0.5, color=theme.ink, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_title(setting.name)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)


def _by_round(axes: Axes, theme: Theme, setting: SettingResult, steps: int) -> None:
    values = mean_by_round(setting)
    middles = (np.arange(len(values)) + 0.5) * steps / len(values)
    for index in range(values.shape[1]):
        axes.plot(middles, values[:, index], color=theme.hues[index % len(theme.hues)], label=f"round {index + 1}")
    percent_axis(axes)
    axes.set_xlabel("step")


def mean_by_round(setting: SettingResult) -> NDArray[np.float64]:
    """Accuracy by round, mean over seeds; shape (tenths, rounds), NaN if not measured."""
    values: NDArray[np.float64] = np.array([run.accuracy_by_round for run in setting.runs], dtype=np.float64)
    return np.asarray(values.mean(axis=0))
