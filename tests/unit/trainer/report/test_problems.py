"""Single problems in a report: the posterior explained by the controller, and its picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_trainer.hints import grid
from seele_trainer.hints.controller import EstimatorName, HintController
from seele_trainer.hints.grid import band
from seele_trainer.hints.shared_ability import Explanation, SharedAbilityEstimator
from seele_trainer.report.page import ReportError, write_report
from seele_trainer.report.problems import problems_plot, telling
from seele_trainer.run_folder.checkpoint import RunState
from tests.support.run_folder import make_run_folder

THRESHOLDS = {"easy": 0.15, "fair": 0.35, "middling": 0.5, "hard": 0.65, "harder": 0.8}


def accuracy(rate: float, threshold: float) -> float:
    return 1 / (1 + math.exp(-12 * (rate - threshold)))


def trained(estimator: EstimatorName = "shared-ability", steps: int = 3) -> HintController:
    """A controller after steps of four rounds of eight rollouts, without sampling noise."""
    controller = HintController(0.5, 4, 8, estimator)
    for _ in range(steps):
        for _ in range(4):
            for name, threshold in THRESHOLDS.items():
                rate = controller.propose(name)
                controller.observe(name, rate, 8 * accuracy(rate, threshold), 8)
        controller.end_step()
    return controller


def explained(controller: HintController, name: str) -> Explanation:
    estimator = SharedAbilityEstimator(0.5)
    estimator.load_state_dict(controller.state_dict()["state"])
    return estimator.explain(name)


def save(folder: Path, step: int, strategy: dict[str, Any]) -> None:
    checkpoint = folder / "checkpoints" / f"step-{step}"
    checkpoint.mkdir(parents=True)
    state = RunState(step=step, policy_version=step, data_fingerprint="", sampler={}, strategy=strategy)
    (checkpoint / "state.json").write_text(state.model_dump_json(by_alias=True))


# The explanation


def test_the_band_is_that_of_the_weighted_curves() -> None:
    # Two curves of the grid with weights 3 and 1: the quantiles 10 % and 90 % are the lower and the upper one.
    curves = np.zeros(grid.SHAPE)
    curves[0, 4, 30], curves[0, 4, 60] = 3.0, 1.0
    mean, low, high = band(curves)
    later, sooner = (
        grid.LAPSE / 2 + (1 - grid.LAPSE) / (1 + np.exp(-grid.DISCRIMINATION[4] * (grid.RATES - grid.THRESHOLD[index])))
        for index in (60, 30)
    )
    np.testing.assert_allclose(mean, 0.75 * sooner + 0.25 * later, atol=1e-9)
    np.testing.assert_allclose(low, later, atol=1e-9)
    np.testing.assert_allclose(high, sooner, atol=1e-9)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_the_curve_that_is_shown_is_the_one_that_proposes(name: str) -> None:
    controller = trained()
    problem = explained(controller, name)
    assert problem.proposed == controller.propose(name)
    assert np.interp(problem.proposed, grid.RATES, problem.accuracy) == pytest.approx(0.5, abs=1e-3)
    assert (np.diff(problem.accuracy) >= 0).all()
    assert (problem.low <= problem.accuracy).all()
    assert (problem.accuracy <= problem.high).all()
    near = np.abs(grid.RATES - THRESHOLDS[name]) < 0.05
    truth = np.array([accuracy(rate, THRESHOLDS[name]) for rate in grid.RATES])
    assert ((problem.low <= truth) & (truth <= problem.high))[near].all()


def test_rounds_of_the_last_step_are_distinguished_from_earlier_ones() -> None:
    controller = trained(steps=2)
    problem = explained(controller, "hard")
    assert (len(problem.earlier), len(problem.latest)) == (4, 4)
    controller.observe("hard", 0.25, 2, 8)
    problem = explained(controller, "hard")
    assert [(seen.rate, seen.successes, seen.trials) for seen in problem.latest] == [(0.25, 2, 8)]
    assert len(problem.earlier) == 8
    # The rounds of this step already count in the curve, as in the next hint.
    assert problem.proposed == controller.propose("hard")
    assert np.interp(problem.proposed, grid.RATES, problem.accuracy) == pytest.approx(0.5, abs=1e-3)
    # Only the last 12 earlier rounds are kept.
    problem = explained(trained(steps=9), "hard")
    assert (len(problem.earlier), len(problem.latest)) == (12, 4)


def test_a_state_of_an_earlier_version_is_read() -> None:
    controller = trained()
    state = controller.state_dict()
    for record in state["state"]["records"].values():
        del record["latest"]
    older = HintController(0.5, 4, 8)
    older.load_state_dict(state)
    assert older.propose("hard") == controller.propose("hard")
    assert explained(older, "hard").latest == ()


def test_telling_problems_go_from_the_hardest_to_the_easiest() -> None:
    difficulties = {str(index): index / 10 for index in range(11)}
    assert telling(difficulties, 3) == ["10", "5", "0"]
    assert telling(difficulties, 6) == ["10", "8", "6", "4", "2", "0"]
    assert telling({"b": 0.5, "a": 0.5}, 6) == ["a", "b"]
    assert telling({}, 6) == []


# The picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_run_folder(tmp_path, steps=4)


def captions(page: Path) -> Sequence[str]:
    return [line for line in page.read_text(encoding="utf-8").splitlines() if "as of the checkpoint of step" in line]


def test_a_report_draws_what_the_last_checkpoint_knew(folder: Path) -> None:
    save(folder, 2, trained(steps=1).state_dict())
    save(folder, 4, trained().state_dict())
    assert any(
        "From the hardest to the easiest, as of the checkpoint of step 4" in text
        for text in captions(write_report(folder))
    )
    first = (folder / "problems.png").read_bytes()
    assert any("Problems, as of the checkpoint of step 4" in text for text in captions(write_report(folder, ["easy"])))
    assert (folder / "problems.png").read_bytes() != first
    # If the newest checkpoint cannot be read, the previous one is drawn.
    (folder / "checkpoints" / "step-4" / "state.json").write_text("{")
    assert any("as of the checkpoint of step 2" in text for text in captions(write_report(folder)))


def test_every_problem_has_a_panel_with_its_rounds_and_its_next_hint(folder: Path) -> None:
    from matplotlib.figure import Figure

    from seele_trainer.report.style import LIGHT

    controller = trained()
    save(folder, 4, controller.state_dict())
    plot = problems_plot(folder, 0.5)
    assert plot is not None
    figure = Figure()
    plot.draw(figure, LIGHT, [], [])
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") or axes.get_title() for axes in panels] == [
        "harder",
        "hard",
        "middling",
        "fair",
        "easy",
    ]
    for axes in panels:
        problem = explained(controller, axes.get_title(loc="left") or axes.get_title())
        _, earlier, latest = axes.collections
        assert (len(earlier.get_offsets()), len(latest.get_offsets())) == (8, 4)
        curve, target, proposed = (np.asarray(line.get_data()) for line in axes.lines)
        np.testing.assert_array_equal(curve, [grid.RATES, problem.accuracy])
        assert set(target[1]) == {0.5}
        assert set(proposed[0]) == {problem.proposed}


@pytest.mark.parametrize("strategy", [{}, trained("paper").state_dict(), HintController(0.5, 4, 8).state_dict()])
def test_a_run_without_posteriors_has_a_report_without_them(folder: Path, strategy: dict[str, Any]) -> None:
    save(folder, 4, strategy)
    assert captions(write_report(folder)) == []
    assert not (folder / "problems.png").exists()


@pytest.mark.parametrize("state", [{}, {"step": 1, "ability": "none"}, []])
def test_a_damaged_hint_state_does_not_prevent_the_report(folder: Path, state: Any) -> None:
    save(folder, 4, {**trained().state_dict(), "state": state})
    assert captions(write_report(folder)) == []
    with pytest.raises(ReportError, match="no checkpoint with the posterior of problem easy"):
        write_report(folder, ["easy"])


def test_an_unknown_problem_is_refused_with_examples_of_known_ones(folder: Path) -> None:
    with pytest.raises(
        ReportError, match=r"no checkpoint with the posterior of problem easy: only strategy seele with"
    ):
        write_report(folder, ["easy"])
    save(folder, 4, trained().state_dict())
    with pytest.raises(
        ReportError, match=r"problem esay is not in the checkpoint of step 4, which has 5 problems: harder"
    ):
        write_report(folder, ["easy", "esay"])
    assert not (folder / "report.html").exists()


def test_the_command_draws_the_given_problems(folder: Path) -> None:
    save(folder, 4, trained().state_dict())
    done = CliRunner().invoke(app, ["report", str(folder), "--problem", "hard", "--problem", "easy"])
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'report.html'}\n")
    assert captions(folder / "report.html")
    refused = CliRunner().invoke(app, ["report", str(folder), "--problem", "none"])
    assert refused.exit_code == 2
    assert "problem none is not in the checkpoint" in refused.stderr
