"""The study of all methods: which runs it makes, how it goes on with them, and what it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from run_folder import step_record
from seele_operator.validation import check_run, parse_run
from seele_trainer.records import BenchmarkScore, EvaluationRecord, Tokens

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from methods_study import carry_out  # noqa: E402 - the benchmarks' folder is needed first
from methods_study import training as training_module  # noqa: E402
from methods_study.design import PARTS, STRATEGIES, TINY, Planned, Scale, best_rate, grid, method, settings  # noqa: E402
from methods_study.intervals import Interval, interval  # noqa: E402
from methods_study.results import measured_from  # noqa: E402

pytestmark = pytest.mark.unit

SCALE = Scale()


@pytest.fixture
def place(tmp_path: Path) -> carry_out.Place:
    """Where no run was made yet."""
    problems = tmp_path / "problems"
    problems.mkdir()
    (problems / "recipe.json").write_text('{"test_problems": 4, "seed": 0}')
    for name in ("train", "test"):
        (problems / f"{name}.jsonl").write_text('{"problem": "37 a+5"}\n')
    return carry_out.Place(problems, tmp_path / "out", SCALE)


# The list of runs


def test_every_method_is_tried_at_every_rate_and_then_repeated_on_every_seed(place: carry_out.Place) -> None:
    jobs = carry_out.expected(place, ["methods"])
    runs = {(job.planned.setting.strategy, job.planned.seed, job.planned.learning_rate) for job in jobs}

    assert len(jobs) == len(runs) == len(STRATEGIES) * (3 + 2)
    assert {(strategy, 0, rate) for strategy in STRATEGIES for rate in (1e-4, 3e-4, 1e-3)} <= runs
    assert {(strategy, seed, 3e-4) for strategy in STRATEGIES for seed in (1, 2)} <= runs


def test_the_same_training_under_several_names_is_one_run(place: carry_out.Place) -> None:
    usual = place.job(Planned(method("seele", SCALE), 1, 3e-4)).folder
    names = [("targets", "target 0.5"), ("rounds", "4 × 8"), ("options", "the defaults")]

    for part, name in names:
        setting = next(setting for setting in settings(part, SCALE) if setting.name == name)
        assert place.job(Planned(setting, 1, 3e-4)).folder == usual, name
    every = carry_out.expected(place, PARTS)
    assert len({job.folder for job in every}) == len(every) == 88


@pytest.mark.parametrize("scale", [SCALE, TINY, replace(SCALE, steps=2)])
def test_every_run_is_a_valid_seele_run(place: carry_out.Place, scale: Scale) -> None:
    jobs = carry_out.expected(replace(place, scale=scale), PARTS)

    assert [line for job in jobs for line in check_run(parse_run(job.manifest))] == []
    assert len({job.manifest["metadata"]["name"] for job in jobs}) == len(jobs)


def test_all_methods_have_the_same_budget(place: carry_out.Place) -> None:
    for strategy in STRATEGIES:
        spec = place.job(Planned(method(strategy, SCALE), 0, 3e-4)).manifest["spec"]
        training, hints = spec["training"], spec["hints"]
        a_problem = 1 if strategy == "sft" else hints["rounds"] * hints["rolloutsPerRound"]

        assert (training["steps"], training["problemsPerStep"] * a_problem) == (40, 512), strategy
        assert training["problemsPerUpdate"] == training["problemsPerStep"], "one update a step"


def test_a_part_changes_what_it_is_about_and_nothing_else(place: carry_out.Place) -> None:
    usual = place.job(Planned(method("seele", SCALE), 0, 3e-4)).manifest["spec"]

    def changed(part: Any) -> list[dict[str, Any]]:
        specs = [place.job(Planned(setting, 0, 3e-4)).manifest["spec"] for setting in settings(part, SCALE)]
        return [
            {
                f"{section}.{field}": value
                for section in spec
                for field, value in (spec[section].items() if isinstance(spec[section], dict) else ())
                if usual.get(section, {}).get(field) != value
            }
            for spec in specs
        ]

    assert changed("targets") == [
        {"hints.targetAccuracy": t} if t != 0.5 else {} for t in (0.25, 0.375, 0.5, 0.625, 0.75)
    ]
    assert changed("rounds")[3:] == [{"hints.rolloutsPerRound": 6}, {"hints.rolloutsPerRound": 4}]
    # Three passes of 13 steps over 16 problems a step.
    assert changed("estimators") == [
        {"hints.estimator": "shared-ability", "dataset.limit": 208},
        {"hints.estimator": "paper", "dataset.limit": 208},
    ]
    assert [list(change) for change in changed("options")] == [
        [],
        ["hints.unit"],
        ["hints.unhintedShare"],
        ["training.advantageGroup"],
        *[["hints.supervision"]] * 3,
    ]


def test_problems_that_choose_learning_rates_are_nobody_elses(place: carry_out.Place) -> None:
    place.make_validation()
    rows = [json.loads(line) for line in place.validation_file.read_text().splitlines()]
    benchmarks = place.job(Planned(method("grpo", SCALE), 0, 3e-4)).manifest["spec"]["evaluation"]["benchmarks"]

    assert [(one["title"], one["path"]) for one in benchmarks] == [
        ("held-out", str(place.problems / "test.jsonl")),
        ("validation", str(place.validation_file)),
    ]
    assert len({row["problem"] for row in rows}) == 4
    drawn = carry_out.chains.sample_problems(4, 2, frozenset({"37 a+5"}))
    assert [row["answer"] for row in rows] == [one.answer for one in drawn]


def test_a_rate_alone_is_not_tried() -> None:
    assert grid(["grpo"], replace(SCALE, learning_rates=(1e-4,))) == []
    assert best_rate({1e-3: 0.4, 1e-4: 0.5, 3e-4: 0.5}) == 1e-4


def test_a_folder_belongs_to_one_spec_and_one_recipe(place: carry_out.Place) -> None:
    planned = Planned(method("grpo", SCALE), 0, 3e-4)
    before = place.job(planned).folder

    assert replace(place, scale=replace(SCALE, steps=41)).job(planned).folder != before
    (place.problems / "recipe.json").write_text('{"test_problems": 4, "seed": 1}')
    assert place.job(planned).folder != before


def test_missing_problems_are_one_line(place: carry_out.Place, tmp_path: Path) -> None:
    with pytest.raises(carry_out.NoProblems, match=r"^--problems: .*nowhere has no problems.*make quickstart-model`$"):
        replace(place, problems=tmp_path / "nowhere").make_validation()


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "20 s"), (42, "1 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_times_are_told_in_words(seconds: float, words: str) -> None:
    assert carry_out.duration(seconds) == words


def test_ctrl_c_lets_a_run_save_itself() -> None:
    # The child interrupts its parent once it is ready, and ends only when the interrupt is passed on to it.
    child = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}); "
        "os.kill(os.getppid(), signal.SIGINT); signal.sigwait({signal.SIGINT}); print('saved', flush=True)"
    )
    parent = (
        "import sys; from methods_study import training; "
        f"print(training._passing_signals_on([sys.executable, '-c', {child!r}], 1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", parent], cwd=BENCHMARKS, capture_output=True, text=True, timeout=60, check=True
    )

    assert done.stdout.split() == ["saved", "130"]


# Carrying it out


class Trainings:
    """Stands in for `train`: writes down what a run of two steps would, or stops at one of them."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, float]] = []
        self.stop_at: int | None = None

    def __call__(self, manifest: Mapping[str, Any], folder: Path) -> None:
        training = manifest["spec"]["training"]
        self.made.append((training["strategy"], training["seed"], training["learningRate"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("{}")
        if len(self.made) == self.stop_at:
            raise training_module.Stopped
        # The lower the rate, the better on validation problems; on those that are reported the other way round.
        good = 1 - 100 * training["learningRate"]
        scores = {
            "held-out": BenchmarkScore(problems=4, greedy_accuracy=1 - good),
            "validation": BenchmarkScore(problems=4, greedy_accuracy=good),
        }
        (folder / "metrics.jsonl").write_text(step_record(1).model_dump_json(by_alias=True) + "\n")
        evaluation = EvaluationRecord(step=1, time=0.0, policy_version=1, seconds=1.0, scores=scores)
        (folder / "eval.jsonl").write_text(evaluation.model_dump_json(by_alias=True) + "\n")
        (folder / "final").mkdir()


def test_a_stopped_study_goes_on_and_makes_no_run_twice(
    place: carry_out.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replace(place, scale=replace(SCALE, seeds=2))
    trainings, said = Trainings(), list[str]()
    monkeypatch.setattr(carry_out, "train", trainings)

    trainings.stop_at = 2
    with pytest.raises(training_module.Stopped):
        carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    assert carry_out.collected(place, "now").settings == (), "nothing is reported by halves"
    states = [job.state for job in carry_out.expected(place, ["rounds"])]
    assert states == ["finished", "interrupted", *["to do"] * (len(states) - 2)]

    carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    # Three rates on seed 0, the best by validation on both seeds; 4 x 8 on seed 0 was among the three.
    assert trainings.made[:4] == [("seele", 0, 1e-4), *[("seele", 0, 3e-4)] * 2, ("seele", 0, 1e-3)]
    assert set(trainings.made[4:]) == {("seele", 0, 1e-4), ("seele", 1, 1e-4)}
    assert len(trainings.made[4:]) == 2 * 5 - 1
    assert any(line.startswith("[2/12] going on with seele, seed 0, learning rate 0.0003; about ") for line in said)

    study = carry_out.collected(place, "now")
    assert [result.name for result in study.settings] == ["2 × 16", "4 × 8", "8 × 4", "4 × 6", "4 × 4"]
    assert [[run.seed for run in result.runs] for result in study.settings] == [[0, 1]] * 5
    assert study.rates[0].chosen == 1e-4
    made = len(trainings.made)
    carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    assert len(trainings.made) == made


# Statistics


def test_an_interval_is_students() -> None:
    # Mean 0.9, deviation 0.1; t(0.975, 2) = 4.302653; half = 4.302653 * 0.1 / sqrt(3).
    value = interval([0.8, 0.9, 1.0])

    assert (value.mean, value.half) == (pytest.approx(0.9), pytest.approx(0.2484139, abs=1e-6))
    assert interval([0.1, 0.3]).half == pytest.approx(12.706205 * 0.1, abs=1e-6)
    assert interval([0.4]) == Interval(0.4, None)


def test_intervals_are_apart_only_where_both_are_known() -> None:
    assert Interval(0.9, 0.1).above(Interval(0.7, 0.05))
    assert not Interval(0.9, 0.1).above(Interval(0.7, 0.15))
    assert not Interval(0.9, None).above(Interval(0.1, 0.1))
    assert not Interval(0.9, 0.1).above(Interval(0.1, None))


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
            tokens=Tokens(prompt=1, hint=2, generated=3, trained=4),
        )

    steps = [
        record(1, (0.0, 0.2), 0.1, 0.4),
        record(2, (0.4, None), 0.4, 0.6),
        record(3, (0.6, 0.4), 0.5, 1.0),
        record(4, (0.8, 0.6), 0.7, 0.4),
    ]
    evaluations = [
        EvaluationRecord(
            step=step,
            time=0.0,
            policy_version=step,
            seconds=15.0,
            scores={
                "held-out": BenchmarkScore(problems=4, greedy_accuracy=accuracy),
                "validation": BenchmarkScore(problems=4, greedy_accuracy=1 - accuracy),
            },
        )
        for step, accuracy in ((0, 0.0), (4, 0.75))
    ]
    run = measured_from(steps, evaluations, "abc", seed=2, steps_of_pass=1)

    assert (run.seed, run.evaluated_at, run.held_out, run.validation) == (2, (0, 4), (0.0, 0.75), 0.25)
    assert (run.before, run.after, run.rollouts, run.minutes) == (0.0, 0.75, 40, 2.5)
    assert run.tokens == Tokens(prompt=4, hint=8, generated=12, trained=16)
    assert run.accuracy_by_round == ((0.0, 0.2), (0.4, None), (0.6, 0.4), (0.8, 0.6))
    assert run.late_accuracy_by_round == (0.7, 0.5)
    assert (run.late_reward, run.late_hint_rate) == (0.6, 0.6)
    assert (run.efficiency, run.zero_gradient_groups) == (0.6, 0.6)
    assert run.second_pass_first_round == 0.4

    without = measured_from([record(1, (), None, None)], evaluations, "abc", seed=0)
    assert (without.accuracy_by_round, without.late_reward, without.efficiency) == ((), None, None)
