"""The pictures of a report, drawn from a run's records, each for light and for dark backgrounds."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from seele_trainer.report.style import (
    Theme,
    legend,
    line,
    log_axis,
    numbers,
    percent_axis,
    smoothed,
    step_axis,
    style,
    target,
)
from seele_trainer.run_folder.records import EvaluationRecord, StepPhase, StepRecord

PHASES: tuple[StepPhase, ...] = get_args(StepPhase)


@dataclass(frozen=True)
class Plot:
    """One picture: file name without suffix, title and caption for readers, and the function that draws it.

    `shown` says whether the records hold anything to draw: not all methods have hints, a controller, or rollouts.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Figure, Theme, Sequence[StepRecord], Sequence[EvaluationRecord]], None]
    shown: Callable[[Sequence[StepRecord]], bool] = lambda _: True
    height: float = 3.1

    def figure(self, theme: Theme, steps: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]) -> Figure:
        """Draw the picture in a theme's colours."""
        figure = Figure(figsize=(5.1, self.height), layout="constrained")
        FigureCanvasAgg(figure)
        self.draw(figure, theme, steps, evaluations)
        return figure

    def png(self, theme: Theme, steps: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]) -> bytes:
        """Draw the picture with enough pixels for dense screens."""
        with mpl.rc_context(style(theme)):
            image = io.BytesIO()
            self.figure(theme, steps, evaluations).savefig(image, format="png", dpi=190, facecolor=theme.paper)
        return image.getvalue()


def draw_learning(
    figure: Figure, theme: Theme, steps: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]
) -> None:
    """Held-out accuracy without hints, the unhinted probes, and the reward with hints against its target."""
    axes, x = figure.add_subplot(), numbers(steps)
    titles = list(dict.fromkeys(title for evaluation in evaluations for title in evaluation.scores))
    for index, title in enumerate(titles):
        scored = [(e.step, e.scores[title]) for e in evaluations if title in e.scores]
        colour = theme.hues[(0, 2, 3, 4, 5)[index % 5]]
        at = [step for step, _ in scored]
        greedy = [score.greedy_accuracy for _, score in scored]
        label = f"{title}, no hint" if len(titles) == 1 else title
        axes.plot(
            at, greedy, color=colour, marker="o", markersize=4.5, linewidth=2.4, label=label, zorder=4, clip_on=False
        )
        sampled = [(step, score) for step, score in scored if score.sampled_accuracy is not None]
        if sampled:
            axes.plot(
                [step for step, _ in sampled],
                [score.sampled_accuracy or 0.0 for _, score in sampled],
                color=colour,
                linestyle=":",
                marker="o",
                markersize=2.5,
                linewidth=1.4,
                label=f"avg@{sampled[-1][1].samples}" if len(titles) == 1 else None,
                zorder=3,
            )
    if any(record.unhinted_accuracy is not None for record in steps):
        probes = [record.unhinted_accuracy for record in steps]
        line(axes, x, probes, theme.hues[5], linewidth=1.5, label="probes, no hint")
    if any(record.reward is not None for record in steps):
        label = "reward, hinted" if any(record.hint_rate for record in steps) else "reward"
        line(axes, x, [record.reward for record in steps], theme.hues[1], band=True, label=label)
    target(axes, steps, theme)
    step_axis(axes, steps, first=min([1, *(evaluation.step for evaluation in evaluations)]))
    percent_axis(axes)
    legend(axes, 3)


def draw_rounds(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """Accuracy of each round of a problem against the target."""
    axes, x = figure.add_subplot(), numbers(steps)
    rounds = max(len(record.accuracy_by_round) for record in steps)
    for index in range(rounds):
        values = [r.accuracy_by_round[index] if index < len(r.accuracy_by_round) else None for r in steps]
        # The last rounds, for which the controller has data, stand out.
        colour = theme.hues[index % len(theme.hues)]
        line(axes, x, values, colour, band=index >= rounds - 2, label=f"round {index + 1}")
    target(axes, steps, theme)
    step_axis(axes, steps)
    percent_axis(axes)
    legend(axes, 4)


def draw_hints(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """How much of the solution was shown: share of rollouts by hint rate for each step, and the mean."""
    axes = figure.add_subplot()
    edges = np.array(steps[-1].hint_rate_histogram.edges)
    alike = [record for record in steps if record.hint_rate_histogram.edges == steps[-1].hint_rate_histogram.edges]
    counts = np.array([record.hint_rate_histogram.counts for record in alike], dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    at = numbers(alike)
    bounds = np.append(at - 0.5, at[-1] + 0.5)
    colours = LinearSegmentedColormap.from_list("heat", theme.heat)
    # Very large cells, such as the many rollouts without a hint late in a run, must not pale all others.
    ceiling = max(float(np.quantile(shares[shares > 0], 0.97)) if (shares > 0).any() else 0.0, 0.05)
    mesh = axes.pcolormesh(bounds, edges, shares.T, cmap=colours, vmin=0, vmax=ceiling, rasterized=True)
    line(axes, numbers(steps), [record.hint_rate for record in steps], theme.hues[1], label="mean", linewidth=2.2)
    bar = figure.colorbar(mesh, ax=axes, pad=0.02, fraction=0.05, extend="max")
    bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bar.ax.yaxis.set_major_locator(MaxNLocator(4))
    bar.outline.set_visible(False)
    bar.set_label("share of rollouts")
    axes.grid(visible=False)
    step_axis(axes, steps)
    axes.set_xlim(bounds[0], bounds[-1])
    percent_axis(axes)
    axes.set_ylabel("share of the solution shown")
    legend(axes, 1)


def draw_time(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """Seconds of each step by phase, stacked; if there are more than 120 steps, neighbours are averaged."""
    axes = figure.add_subplot()
    width = -(-len(steps) // 120)
    groups = [steps[start : start + width] for start in range(0, len(steps), width)]
    at = np.array([np.mean([record.step for record in group]) for group in groups])
    bottom = np.zeros(len(groups))
    for phase, colour in zip(PHASES, theme.hues, strict=True):
        values = np.array([np.mean([record.phase_seconds.get(phase, 0.0) for record in group]) for group in groups])
        if values.any():
            axes.bar(at, values, width=width, bottom=bottom, color=colour, label=phase, linewidth=0)
            bottom += values
    rest = np.array([np.mean([record.step_seconds for record in group]) for group in groups]) - bottom
    if (rest > 0.005 * bottom.max()).any():
        axes.bar(at, np.maximum(rest, 0), width=width, bottom=bottom, color=theme.grid, label="other", linewidth=0)
    step_axis(axes, steps)
    axes.set_xlim(steps[0].step - 0.5, steps[-1].step + 0.5)
    axes.set_ylabel("seconds")
    axes.grid(visible=False, axis="x")
    legend(axes, 4)


def draw_efficiency(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """How much a step can teach: mean of 4a(1-a), and the share of groups that teach nothing."""
    axes, x = figure.add_subplot(), numbers(steps)
    line(axes, x, [r.learning_efficiency for r in steps], theme.hues[2], band=True, label="learning efficiency 4a(1−a)")
    line(axes, x, [r.zero_gradient_groups for r in steps], theme.hues[4], band=True, label="groups without gradient")
    step_axis(axes, steps)
    percent_axis(axes)
    legend(axes, 2)


def draw_identity(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """Descent of single groups against their accuracy, means by tenth of the accuracy, and a fitted c·a(1−a)."""
    axes = figure.add_subplot()
    accuracy, descent = np.array([(one.accuracy, one.descent) for record in steps for one in record.descents]).T
    shape = accuracy * (1 - accuracy)
    scale = float(shape @ descent / (shape @ shape))
    at = np.linspace(0, 1, 101)
    axes.scatter(accuracy, descent, s=9, color=theme.faint, alpha=0.35, linewidths=0, label="one problem in one step")
    axes.plot(at, scale * at * (1 - at), color=theme.ink, linestyle=(0, (4, 3)), label=f"{scale:.2g} · a(1−a)")
    tenths = np.minimum((accuracy * 10).astype(int), 9)
    filled = [tenth for tenth in range(10) if (tenths == tenth).sum() >= 3]
    parts = [descent[tenths == tenth] for tenth in filled]
    axes.errorbar(
        [accuracy[tenths == tenth].mean() for tenth in filled],
        [part.mean() for part in parts],
        yerr=[part.std(ddof=1) / np.sqrt(len(part)) for part in parts],
        color=theme.hues[1],
        fmt="o",
        markersize=5,
        linewidth=1.6,
        zorder=4,
        label="mean by tenth",
    )
    # A few outliers must not flatten all other groups.
    low, high = np.quantile(descent, (0.02, 0.98))
    room = 0.1 * max(high - low, 1e-12)
    axes.set_ylim(min(low, 0.0) - room, max(high, scale / 4) + room)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("accuracy a of the problem's rollouts")
    axes.set_ylabel("descent, nats per rollout")
    legend(axes, 2)


def draw_optimisation(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """Loss terms, gradient norm, divergences: six small panels."""
    x = numbers(steps)
    panels: tuple[tuple[str, list[float], bool], ...] = (
        ("policy loss", [record.losses.policy for record in steps], False),
        ("supervised cross-entropy", [record.losses.supervised for record in steps], False),
        ("KL to the initial model", [record.losses.kl for record in steps], False),
        ("gradient norm", [record.gradient_norm for record in steps], False),
        ("KL engine ‖ trainer", [record.mismatch_kl for record in steps], True),
        ("clipped tokens", [record.clip_fraction for record in steps], False),
    )
    grid = figure.subplots(3, 2, sharex=True)
    for axes, (title, values, logarithmic), colour in zip(grid.flat, panels, theme.hues, strict=True):
        axes.plot(x, values, color=colour, linewidth=0.7, alpha=0.35)
        line(axes, x, list(values), colour)
        axes.set_title(title)
        axes.yaxis.set_major_locator(MaxNLocator(4))
        if logarithmic and all(value > 0 for value in values):
            log_axis(axes)
        elif title == "clipped tokens":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
            axes.set_ylim(bottom=0)
        else:
            axes.ticklabel_format(axis="y", style="sci", scilimits=(-3, 4), useMathText=True)
        step_axis(axes, steps)
        axes.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        if not axes.get_subplotspec().is_last_row():
            axes.set_xlabel("")


def draw_irt(figure: Figure, theme: Theme, steps: Sequence[StepRecord], _: Sequence[EvaluationRecord]) -> None:
    """Fitted curves of each step's problems: median, and the range of the middle half and of the middle 80%."""
    fitted = [(record.step, record.irt) for record in steps if record.irt is not None and record.irt.ability]
    x = np.array([step for step, _ in fitted], dtype=np.float64)
    panels = (
        ("discrimination k", [irt.discrimination for _, irt in fitted], True),
        ("ability μ", [irt.ability for _, irt in fitted], False),
        ("guessing b", [irt.guessing for _, irt in fitted], False),
    )
    grid = figure.subplots(3, 1, sharex=True)
    for axes, (title, values, logarithmic), colour in zip(grid, panels, theme.hues, strict=False):
        quantiles = np.array([np.quantile(step, (0.1, 0.25, 0.5, 0.75, 0.9)) for step in values]).T
        smooth = [smoothed(list(quantile))[0] for quantile in quantiles]
        for low, high in ((smooth[0], smooth[4]), (smooth[1], smooth[3])):
            axes.fill_between(x, low, high, color=colour, alpha=0.17, linewidth=0)
        axes.plot(x, smooth[2], color=colour, marker="o" if len(x) == 1 else None)
        axes.set_title(title)
        if logarithmic and quantiles.min() > 0:
            log_axis(axes)
        step_axis(axes, steps)
        if not axes.get_subplotspec().is_last_row():
            axes.set_xlabel("")


PLOTS: tuple[Plot, ...] = (
    Plot(
        "learning",
        "Learning",
        "Held-out problems are answered greedily, without hints. The reward is from training, with the method's hints.",
        draw_learning,
    ),
    Plot(
        "rounds",
        "Accuracy by round",
        "Running means, with one standard deviation for the last two rounds, which should reach the target.",
        draw_rounds,
        lambda steps: any(value is not None for record in steps for value in record.accuracy_by_round),
    ),
    Plot(
        "hints",
        "How much of the solution is shown",
        "Each column is a step. The stronger the colour, the more rollouts had a hint of that length.",
        draw_hints,
        lambda steps: any(record.hint_rate is not None for record in steps),
    ),
    Plot(
        "efficiency",
        "What the rollouts can teach",
        "A group at accuracy a teaches in proportion to 4a(1−a). If all its rewards are equal, it has no gradient.",
        draw_efficiency,
        lambda steps: any(record.learning_efficiency is not None for record in steps),
    ),
    Plot(
        "identity",
        "What a step gained on its problems",
        "How much more likely its updates made right answers and less likely wrong ones, measured in steps before an "
        "evaluation. In theory it is bounded by a multiple of a(1−a); the dashed line is a fitted one.",
        draw_identity,
        lambda steps: any(record.descents for record in steps),
    ),
    Plot(
        "time",
        "Where a step's time goes",
        "Wall-clock seconds by phase; verification that overlaps sampling is part of rollout.",
        draw_time,
    ),
    Plot(
        "optimisation",
        "Optimisation",
        "Faint: every step. Strong: running mean. Losses are before their coefficients.",
        draw_optimisation,
        height=5.3,
    ),
    Plot(
        "irt",
        "Fitted item response curves",
        "Median over the step's problems, with the middle half and the middle 80%.",
        draw_irt,
        lambda steps: any(record.irt is not None and record.irt.ability for record in steps),
        height=5.3,
    ),
)
