"""Results of the study of all methods: what is measured of a run, how results are merged, and their file."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from benchmarks.methods_study.design import Scale
from benchmarks.methods_study.intervals import Interval, interval
from benchmarks.methods_study.results import (
    LONGEST,
    SHORTEST,
    BadResults,
    RateChoice,
    late_rounds,
    load,
    measured,
    measured_from,
    save,
)
from seele_trainer.hints.controller import HintController
from seele_trainer.run_folder.checkpoint import RunState
from seele_trainer.run_folder.records import Descent, Tokens
from tests.support.method_studies import BASE, WHOLE, a_setting, a_source, a_study, an_evaluation, write_records
from tests.support.run_folder import step_record


def test_an_interval_is_that_of_students_t() -> None:
    # Mean 0.9, deviation 0.1; t(0.975, 2) = 4.302653; half = 4.302653 * 0.1 / sqrt(3).
    value = interval([0.8, 0.9, 1.0])

    assert (value.mean, value.half) == (pytest.approx(0.9), pytest.approx(0.2484139, abs=1e-6))
    assert interval([0.1, 0.3]).half == pytest.approx(12.706205 * 0.1, abs=1e-6)
    assert interval([0.4]) == Interval(0.4, None)


def test_a_run_is_measured() -> None:
    def record(step: int, rounds: tuple[float | None, ...], reward: float | None, efficiency: float | None) -> Any:
        return step_record(
            step,
            accuracy_by_round=rounds,
            reward=reward,
            hint_rate=reward,
            learning_efficiency=efficiency,
            zero_gradient_groups=efficiency,
            rollouts=10,
            step_seconds=30.0,
            tokens=Tokens(prompt=1, hint=2, generated=3, trained=4, loss=5),
        )

    steps = [
        record(1, (0.0, 0.2), 0.1, 0.4),
        record(2, (0.4, None), 0.4, 0.6),
        record(3, (0.6, 0.4), 0.5, 1.0),
        record(4, (0.8, 0.6), 0.7, 0.4),
    ]
    evaluations = [an_evaluation(0, 0.0, 1.0, seconds=15.0), an_evaluation(4, 0.75, 0.25, seconds=15.0)]
    run = measured_from(steps, evaluations, "abc", seed=2, steps_of_pass=1)

    assert (run.seed, run.evaluated_at, run.held_out, run.validation) == (2, (0, 4), (0.0, 0.75), 0.25)
    assert (run.before, run.after, run.rollouts, run.minutes) == (0.0, 0.75, 40, 2.5)
    assert run.tokens == Tokens(prompt=4, hint=8, generated=12, trained=16, loss=20)
    assert run.accuracy_by_round == ((0.0, 0.2), (0.4, None), (0.6, 0.4), (0.8, 0.6))
    assert run.late_accuracy_by_round == (0.7, 0.5)
    assert (run.late_reward, run.late_hint_rate) == (0.6, 0.6)
    assert (run.efficiency, run.zero_gradient_groups) == (0.6, 0.6)
    assert run.second_pass_first_round == 0.4

    without = measured_from([record(1, (), None, None)], evaluations, "abc", seed=0)
    assert (without.accuracy_by_round, without.late_reward, without.efficiency) == ((), None, None)


def test_gains_of_a_step_are_kept_by_tenths_of_accuracy() -> None:
    found = [Descent(accuracy=a, descent=d) for a, d in ((0.5, 0.2), (0.5625, 0.4), (0.03125, 0.1), (0.96875, -0.1))]
    evaluations = [an_evaluation(2, 0.5, 0.5)]
    run = measured_from(
        [step_record(1), step_record(2, descents=tuple(found), learning_rate=3e-4)], evaluations, "abc", seed=0
    )

    (gains,) = run.gains
    assert (gains.step, gains.learning_rate) == (2, 3e-4)
    assert gains.groups == (1, 0, 0, 0, 0, 2, 0, 0, 0, 1)
    assert gains.descent == pytest.approx((0.1, 0, 0, 0, 0, 0.6, 0, 0, 0, -0.1))


def test_rounds_whose_hint_could_be_shorter_and_longer_are_measured_separately(tmp_path: Path) -> None:
    controller = HintController(0.5, 2, 8)

    def step(**problems: list[tuple[float, int]]) -> None:
        for problem, rounds in problems.items():
            for rate, successes in rounds:
                controller.observe(problem, rate, successes, 8)
        controller.end_step()

    step(early=[(0.5, 8), (0.5, 8)])
    step(both=[(0.5, 8), (0.5, 8)])
    step(both=[(0.5, 3), (0.4, 4)], easy=[(0.0, 8), (0.05, 6)])
    step(hard=[(0.95, 1), (0.96, 0)])
    late = late_rounds(save_checkpoint(tmp_path, controller), 2)
    assert sorted(one.successes for one in late if SHORTEST <= one.rate <= LONGEST) == [1, 3, 4, 6]
    assert [one.successes for one in late if one.rate < SHORTEST] == [8]
    assert [one.successes for one in late if one.rate > LONGEST] == [0]

    records = [step_record(number, accuracy_by_round=(0.5, 0.5)) for number in range(1, 5)]
    write_records(tmp_path, records, an_evaluation(4, 0.5, 0.5))
    run = measured(tmp_path, 0)
    assert run.free_reward == 14 / 32
    assert (run.unhinted_share, run.unhinted_reward) == (pytest.approx(8 / 48, abs=1e-6), 1.0)
    assert (run.whole_share, run.whole_reward) == (pytest.approx(8 / 48, abs=1e-6), 0.0)

    shutil.rmtree(tmp_path / "checkpoints")
    without = measured(tmp_path, 0)
    assert (without.free_reward, without.unhinted_share, without.whole_share) == (None, None, None)
    save_checkpoint(tmp_path, HintController(0.5, 2, 8, estimator="paper"))
    assert late_rounds(tmp_path, 0) == []


def save_checkpoint(folder: Path, controller: HintController) -> Path:
    (folder / "checkpoints" / "step-4").mkdir(parents=True)
    state = RunState(step=4, policy_version=4, data_fingerprint="", sampler={}, strategy=controller.state_dict())
    (folder / "checkpoints" / "step-4" / "state.json").write_text(state.model_dump_json(by_alias=True))
    return folder


def test_results_survive_saving_and_loading(tmp_path: Path) -> None:
    save(WHOLE, tmp_path / "results" / "methods.json")

    assert load(tmp_path / "results" / "methods.json") == WHOLE
    assert "lateAccuracyByRound" in (tmp_path / "results" / "methods.json").read_text()


def test_unreadable_results_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "methods.json").write_text("{}")

    with pytest.raises(BadResults, match=r"^[^\n]*methods.json: [^\n]*run `make bench-methods` to write it again$"):
        load(tmp_path / "methods.json")


def test_results_of_another_scale_are_not_merged() -> None:
    study = a_study()

    assert study.trained(Scale(), {"seed": 0})
    assert not study.trained(Scale(steps=41), {"seed": 0})
    assert not study.trained(Scale(), {"seed": 1})


def test_parts_of_another_day_are_added_to_those_of_today() -> None:
    yesterday = a_study(
        a_setting("methods", "seele", [0.5]),
        a_setting("rounds", "4 × 8", [0.5]),
        rates=(
            RateChoice(strategy="seele", tried=((1e-4, 0.5),), chosen=1e-4),
            RateChoice(strategy="uft", tried=((1e-4, 0.5),), chosen=1e-4),
        ),
        sources=(a_source("methods", "rounds", command="yesterday"),),
    )
    today = a_study(
        a_setting("rounds", "4 × 8", [0.7]),
        a_setting("targets", "target 0.5", [0.7]),
        sources=(a_source("targets", "rounds"),),
    )
    both = today.beside(yesterday)

    assert [(setting.part, setting.runs[0].after) for setting in both.settings] == [
        ("methods", 0.5),
        ("targets", 0.7),
        ("rounds", 0.7),
    ]
    assert [(choice.strategy, choice.chosen) for choice in both.rates] == [("seele", 3e-4), ("uft", 1e-4)]
    assert [(source.command, source.parts) for source in both.sources] == [
        ("yesterday", ("methods",)),
        ("python -m benchmarks.methods", ("targets", "rounds")),
    ]


def test_methods_and_targets_are_kept_for_every_base_model_and_other_parts_for_the_latest() -> None:
    before = a_study(
        a_setting("methods", "seele", [0.3]),
        a_setting("targets", "target 0.5", [0.9]),
        a_setting("rounds", "4 × 8", [0.9]),
    )
    after = a_study(
        a_setting("methods", "seele", [0.2], base_model="other"),
        a_setting("targets", "target 0.5", [0.8], base_model="other"),
        a_setting("rounds", "4 × 8", [0.7], base_model="other"),
        sources=(a_source("methods", "targets", "rounds", base_model="other"),),
    )
    both = after.beside(before)

    assert [(setting.part, setting.base_model) for setting in both.settings] == [
        ("methods", BASE),
        ("methods", "other"),
        ("targets", BASE),
        ("targets", "other"),
        ("rounds", "other"),
    ]
    assert [source.parts for source in both.sources] == [("methods", "targets"), ("methods", "targets", "rounds")]
    assert [setting.runs[0].after for setting in both.part("targets")] == [0.8]
    again = after.model_copy(update={"settings": (a_setting("targets", "target 0.5", [0.6], base_model="other"),)})
    assert [setting.runs[0].after for setting in again.beside(both).settings] == [0.3, 0.2, 0.9, 0.6, 0.7]
