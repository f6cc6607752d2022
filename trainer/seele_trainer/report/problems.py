"""Plots of individual problems in a report: what the hint controller knew about each at the last checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from seele_trainer.formatting import counted
from seele_trainer.hints import grid
from seele_trainer.hints.controller import FORMAT
from seele_trainer.hints.shared_ability import Explanation, Round, SharedAbilityEstimator
from seele_trainer.report.plots import Plot
from seele_trainer.report.style import Theme
from seele_trainer.run_folder.checkpoint import latest_state

logger = logging.getLogger(__name__)

SHOWN = 6
COLUMNS = 2
MAX_TITLE_LENGTH = 28


class UnknownProblemError(ValueError):
    """A problem cannot be drawn. The message says why, and which problems can be."""


def problems_plot(run_dir: Path, target: float, wanted: Sequence[str] = ()) -> Plot | None:
    """A figure of the wanted problems or, by default, of a few from the hardest to the easiest.

    None if no checkpoint of the run has posteriors. Raises UnknownProblemError if a wanted problem cannot be drawn.
    """
    found = _last_estimator(run_dir, target)
    if found is None:
        if wanted:
            raise UnknownProblemError(
                f"{run_dir} has no checkpoint with the posterior of problem {wanted[0]}: only strategy seele with "
                "hints.estimator shared-ability keeps one, from its first checkpoint on"
            )
        return None
    step, estimator = found
    difficulties = estimator.difficulties()
    for problem_id in wanted:
        if problem_id not in difficulties:
            raise UnknownProblemError(
                f"problem {problem_id} is not in the checkpoint of step {step}, which has "
                f"{counted(len(difficulties), 'problem')}{': ' if difficulties else ''}{', '.join(telling(difficulties, 3))}"
            )
    explained = [estimator.explain(problem_id) for problem_id in wanted or telling(difficulties, SHOWN)]
    if not explained:
        return None
    rows = -(-len(explained) // COLUMNS)
    return Plot(
        "problems",
        "What the controller knows about individual problems",
        f"{'Problems' if wanted else 'From the hardest to the easiest'}, as of the checkpoint of step {step}: expected "
        "accuracy by hint rate, with the middle 80% of its posterior. Filled: rounds of the problem's last step; hollow: "
        "earlier rounds, by an earlier model. Dotted: the next hint.",
        lambda figure, theme, _, __: draw_problems(figure, theme, explained, target),
        height=0.6 + 1.5 * rows,
    )


def _last_estimator(run_dir: Path, target: float) -> tuple[int, SharedAbilityEstimator] | None:
    """The estimator in the last checkpoint, and the checkpoint's step."""
    state = latest_state(run_dir / "checkpoints")
    if state is None or state.strategy.get("format") != FORMAT or state.strategy.get("estimator") != "shared-ability":
        return None
    estimator = SharedAbilityEstimator(target)
    try:
        estimator.load_state_dict(state.strategy["state"])
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("the hint state of step %d is damaged, so no problems are drawn: %r", state.step, error)
        return None
    return state.step, estimator


def telling(difficulties: Mapping[str, float], count: int) -> list[str]:
    """`count` problems (at least two) from the hardest to the easiest, evenly spaced in that order."""
    order = sorted(difficulties, key=lambda problem_id: (-difficulties[problem_id], problem_id))
    if len(order) <= count:
        return order
    return [order[round(index * (len(order) - 1) / (count - 1))] for index in range(count)]


def draw_problems(figure: Figure, theme: Theme, problems: Sequence[Explanation], target: float) -> None:
    """Each problem's posterior accuracy by hint rate, its observed rounds, the target and the next hint."""
    rows = -(-len(problems) // COLUMNS)
    grid_of_axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    for axes in grid_of_axes.flat[len(problems) :]:
        axes.set_visible(False)
    for axes, problem in zip(grid_of_axes.flat, problems, strict=False):
        colour = theme.hues[0]
        axes.fill_between(grid.RATES, problem.low, problem.high, color=colour, alpha=0.18, linewidth=0)
        axes.plot(grid.RATES, problem.accuracy, color=colour)
        axes.axhline(target, color=theme.ink, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.axvline(problem.proposed, color=theme.hues[1], linewidth=1.6, linestyle=":")
        _draw_rounds(axes, problem.earlier, edge=theme.faint, face="none")
        _draw_rounds(axes, problem.latest, edge=theme.hues[1], face=theme.hues[1])
        title = problem.problem_id
        axes.set_title(title if len(title) <= MAX_TITLE_LENGTH else f"{title[: MAX_TITLE_LENGTH - 1]}…", fontsize=9.5)
        axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(-0.06, 1.06)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1.0))
        axes.set_yticks([0, 0.5, 1.0])
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    figure.supxlabel("hint rate", color=theme.faint, fontsize=10.5)


def _draw_rounds(axes: Axes, rounds: Sequence[Round], edge: str, face: str) -> None:
    axes.scatter(
        [seen.rate for seen in rounds],
        [seen.successes / seen.trials for seen in rounds],
        s=[8 + 3 * min(seen.trials, 16.0) for seen in rounds],
        linewidths=1.0,
        zorder=4,
        edgecolor=edge,
        facecolor=face,
    )
