"""How a report's pictures look: colours for light and dark backgrounds, smoothing, axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import NDArray

from seele_trainer.run_folder.records import StepRecord

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Theme:
    """Colours of one scheme. `hues` are ordered so that colour-blind readers can distinguish the first ones."""

    paper: str
    ink: str
    faint: str
    grid: str
    hues: tuple[str, ...]
    heat: tuple[str, ...]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1f2430",
    faint="#6b7280",
    grid="#e6e8ec",
    hues=("#2563a8", "#d9822b", "#2a8c74", "#8f5fb0", "#b5475f", "#8a8f98"),
    heat=("#ffffff", "#cfe0f1", "#7fb0dc", "#2f74b5", "#123f70"),
)
DARK = Theme(
    paper="#171a21",
    ink="#e4e7ec",
    faint="#9aa3b2",
    grid="#2b303b",
    hues=("#6aa9e9", "#f0a352", "#52c3a5", "#bd92dc", "#ea7d95", "#8b93a1"),
    heat=("#171a21", "#1d3a5a", "#2f6ba5", "#72b0e6", "#e3f0fc"),
)


def smoothed(values: Sequence[float | None]) -> tuple[Series, Series, Series]:
    """Running mean over a tenth of the steps, and one standard deviation below and above it; gaps are skipped.

    NaN before the first and after the last value: some methods begin without rollouts.
    """
    series = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    half = max(1, len(series) // 20)
    mean, low, high = (np.full(len(series), np.nan) for _ in range(3))
    measured = np.flatnonzero(np.isfinite(series))
    for index in range(measured[0], measured[-1] + 1) if len(measured) else ():
        window = series[max(0, index - half) : index + half + 1]
        window = window[np.isfinite(window)]
        if len(window):
            mean[index] = window.mean()
            low[index], high[index] = mean[index] - window.std(), mean[index] + window.std()
    return mean, low, high


def style(theme: Theme) -> dict[Any, Any]:
    """Matplotlib settings of a theme."""
    return {
        "font.size": 10.5,
        "axes.titlesize": 10.5,
        "axes.titlelocation": "left",
        "axes.labelcolor": theme.faint,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.paper,
        "axes.titlecolor": theme.ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.faint,
        "ytick.color": theme.faint,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "text.color": theme.ink,
        "lines.linewidth": 1.9,
        "lines.solid_capstyle": "round",
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "legend.handlelength": 1.6,
    }


def numbers(records: Sequence[StepRecord]) -> Series:
    """The step of each record."""
    return np.array([record.step for record in records], dtype=np.float64)


def line(
    axes: Axes, x: Series, values: Sequence[float | None], colour: str, *, band: bool = False, **style: Any
) -> None:
    """Draw a smoothed line, or a dot if there is a single value."""
    mean, low, high = smoothed(values)
    alone = np.isfinite(mean).sum() == 1
    axes.plot(x, mean, color=colour, marker="o" if alone else None, markersize=5, **style)
    if band and not alone:
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)


def step_axis(axes: Axes, steps: Sequence[StepRecord], first: int = 1) -> None:
    """Show steps on the x axis, from `first` to the last one."""
    last = max(steps[-1].step, first)
    axes.set_xlim(first - 0.5 if last - first < 3 else first, last + 0.5 if last - first < 3 else last)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step")


def percent_axis(axes: Axes) -> None:
    """Let the y axis go from 0 to 100 %."""
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1.0])


def log_axis(axes: Axes) -> None:
    """Make the y axis logarithmic, with few labels."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=6))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def target(axes: Axes, steps: Sequence[StepRecord], theme: Theme) -> None:
    """Draw the accuracy that a controller's hints aim at; nothing for methods without a controller."""
    if any(record.irt is not None for record in steps):
        axes.axhline(steps[-1].target_accuracy, color=theme.ink, linewidth=1.1, linestyle=(0, (4, 3)), label="target")


def legend(axes: Axes, columns: int) -> None:
    """Put the legend above the axes, where it hides no data."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=columns, borderaxespad=0.2, columnspacing=1.2)
