"""The study of all methods: which runs it makes, and how it resumes them."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from benchmarks.methods_study import carry_out
from benchmarks.methods_study import training as training_module
from benchmarks.methods_study.design import PARTS, STRATEGIES, TINY, Planned, Scale, best_rate, grid, method, settings
from benchmarks.methods_study.results import RateChoice
from seele_operator.validation.load import check_run, parse_run
from seele_trainer.quickstart import chains
from seele_trainer.quickstart.base_model import build_tokenizer
from tests.support import REPOSITORY
from tests.support.method_studies import an_evaluation, write_records
from tests.support.run_folder import step_record
from tests.support.spec_data import patched

SCALE = Scale()


@pytest.fixture
def place(tmp_path: Path) -> carry_out.Place:
    """A place without any runs."""
    problems = tmp_path / "problems"
    problems.mkdir()
    (problems / "base").mkdir()
    (problems / "base" / "model.safetensors").write_bytes(b"weights")
    (problems / "recipe.json").write_text('{"test_problems": 4, "seed": 0, "longest": 8}')
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
    unsupervised, option = (
        next(setting for setting in settings(part, SCALE) if setting.name == name)
        for part, name in (("unsupervised", "seele, hints not learnt"), ("supervision", "none"))
    )
    assert place.job(Planned(unsupervised, 1, 3e-4)).folder == place.job(Planned(option, 1, 3e-4)).folder
    names = [("targets", "target 0.5"), ("rounds", "4 × 8"), ("options", "the defaults")]

    for part, name in names:
        setting = next(setting for setting in settings(part, SCALE) if setting.name == name)
        assert place.job(Planned(setting, 1, 3e-4)).folder == usual, name
    every = carry_out.expected(place, PARTS)
    assert len({job.folder for job in every}) == len(every) == 94


@pytest.mark.parametrize("scale", [SCALE, TINY, replace(SCALE, steps=2)])
def test_every_run_is_a_valid_seele_run(place: carry_out.Place, scale: Scale) -> None:
    jobs = carry_out.expected(replace(place, scale=scale), PARTS)

    assert [line for job in jobs for line in check_run(parse_run(job.manifest))] == []
    assert len({job.manifest["metadata"]["name"] for job in jobs}) == len(jobs)


def test_all_methods_have_the_same_budget(place: carry_out.Place) -> None:
    for strategy in STRATEGIES:
        run = parse_run(place.job(Planned(method(strategy, SCALE), 0, 3e-4)).manifest)
        training, hints = run.spec.training, run.spec.hints
        a_problem = 1 if strategy == "sft" else hints.rounds * hints.rollouts_per_round
        beforehand = training.sft_steps if strategy == "sft_then_grpo" else 0

        assert (training.steps - beforehand, training.problems_per_step * a_problem) == (40, 512), strategy
        assert beforehand == (10 if strategy == "sft_then_grpo" else 0)
        assert training.problems_per_update == training.problems_per_step, "one update a step"


def test_a_part_changes_only_what_it_is_about(place: carry_out.Place) -> None:
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
    ]
    assert [list(change) for change in changed("supervision")] == [[], *[["hints.supervision"]] * 3]


def test_problems_that_choose_learning_rates_are_used_for_nothing_else(place: carry_out.Place) -> None:
    place.make_validation()
    rows = [json.loads(line) for line in place.validation_file.read_text().splitlines()]
    benchmarks = place.job(Planned(method("grpo", SCALE), 0, 3e-4)).manifest["spec"]["evaluation"]["benchmarks"]

    assert [(one["title"], one["path"]) for one in benchmarks] == [
        ("held-out", str(place.problems / "test.jsonl")),
        ("validation", str(place.validation_file)),
    ]
    assert len({row["problem"] for row in rows}) == 4
    drawn = chains.sample_problems(4, 2, frozenset({"37 a+5"}))
    assert [row["answer"] for row in rows] == [one.answer for one in drawn]


def test_limits_follow_the_chains_and_are_the_quickstarts_for_its_own(place: carry_out.Place) -> None:
    tokenizer = build_tokenizer(len(chains.LABELS))
    for longest in (2, 8, 26):
        limits = carry_out.lengths(longest)
        for problem in chains.sample_problems(20, 0, longest=longest):
            assert len(tokenizer(problem.question + "\n")["input_ids"]) <= limits["dataset"]["maxPromptTokens"]
            solution = len(tokenizer(problem.solution)["input_ids"])
            # The end of the sequence is one more.
            assert solution < limits["dataset"]["maxSolutionTokens"] == limits["rollout"]["maxCompletionTokens"]
        changes = patched(limits, method("seele", SCALE).changes)
        assert check_run(parse_run(training_module.quickstart(place.problems, "chains", changes))) == []
    quickstart = yaml.safe_load(training_module.QUICKSTART.read_text())["spec"]
    assert all(quickstart[name].items() >= limit.items() for name, limit in carry_out.lengths(8).items())

    before = place.job(Planned(method("grpo", SCALE), 0, 3e-4)).folder
    (place.problems / "recipe.json").write_text('{"test_problems": 4, "seed": 0, "longest": 12}')
    job = place.job(Planned(method("grpo", SCALE), 0, 3e-4))
    assert job.folder != before
    assert check_run(parse_run(job.manifest)) == []
    place.make_validation()
    assert all(11 <= json.loads(line)["solution"].count("=") <= 12 for line in place.validation_file.open())


def test_a_single_rate_is_not_tried() -> None:
    assert grid(["grpo"], replace(SCALE, learning_rates=(1e-4,))) == []
    assert best_rate({1e-3: 0.4, 1e-4: 0.5, 3e-4: 0.5}) == 1e-4


def test_each_spec_base_model_and_recipe_has_its_own_folder(place: carry_out.Place) -> None:
    planned = Planned(method("grpo", SCALE), 0, 3e-4)
    before = place.job(planned).folder

    weights = place.problems / "base" / "model.safetensors"
    for content, same in ((b"other weights", False), (b"weights", True)):
        weights.write_bytes(content)
        carry_out._digest_of_file.cache_clear()
        assert (place.job(planned).folder == before) == same

    assert replace(place, scale=replace(SCALE, steps=41)).job(planned).folder != before
    (place.problems / "recipe.json").write_text('{"test_problems": 4, "seed": 1, "longest": 8}')
    assert place.job(planned).folder != before


def test_missing_problems_give_one_line(place: carry_out.Place, tmp_path: Path) -> None:
    with pytest.raises(carry_out.NoProblems, match=r"^--problems: .*nowhere has no problems.*make quickstart-model`$"):
        replace(place, problems=tmp_path / "nowhere").make_validation()
    recipe = place.problems / "recipe.json"
    now = recipe.read_text()
    recipe.write_text('{"test_problems": 4, "seed": 0}')
    with pytest.raises(carry_out.NoProblems, match=r"recipe.json is from an earlier version .*make quickstart-model`$"):
        place.make_validation()
    recipe.write_text(now)
    carry_out._digest_of_file.cache_clear()
    (place.problems / "base" / "model.safetensors").unlink()
    with pytest.raises(
        carry_out.NoProblems, match=r"model.safetensors cannot be read \(No such file.*make quickstart-model`$"
    ):
        carry_out.expected(place, ["rounds"])


@pytest.mark.parametrize(
    ("seconds", "words"), [(20, "20 s"), (42, "1 min"), (3599, "1 h 00 min"), (7500, "2 h 05 min")]
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert carry_out.duration(seconds) == words


def test_results_name_the_commit_and_whether_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*command: str) -> str:
        done = subprocess.run(["git", *command], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    monkeypatch.setattr(training_module, "REPOSITORY", tmp_path)
    assert training_module.revision() is None
    git("init", "-q")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "first")
    assert training_module.revision() == git("rev-parse", "--short", "HEAD")
    (tmp_path / "file").write_text("two")
    assert training_module.revision() == git("rev-parse", "--short", "HEAD") + "+"


def test_ctrl_c_lets_every_run_save_itself(tmp_path: Path) -> None:
    # Each child prints that it is ready, and ends only when it gets the interrupt; a second one would kill it.
    child = (
        "import os, signal, sys, time; signal.signal(signal.SIGINT, lambda *_: (print('saved', flush=True), "
        "signal.signal(signal.SIGINT, signal.SIG_DFL), time.sleep(0.5), sys.exit(130))); print('ready', flush=True); "
        "time.sleep(60)"
    )
    parent = f"""
import os, signal, sys, threading, time
from pathlib import Path
from benchmarks.methods_study.training import Stopped, Trainings
logs = [Path({str(tmp_path)!r}, f"{{name}}.log") for name in "ab"]
def interrupt():
    while not all(log.is_file() and log.read_text() for log in logs):
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGINT)
with Trainings() as trainings:
    for log in logs:
        trainings._start(log.with_suffix(""), [sys.executable, "-c", {child!r}])
    threading.Thread(target=interrupt).start()
    try:
        trainings.ended()
    except Stopped:
        print("stopped")
print([child.returncode for child in trainings._under_way.values()])
"""
    done = subprocess.run(
        [sys.executable, "-c", parent],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.splitlines() == ["stopped", "[130, 130]"]
    assert [(tmp_path / f"{name}.log").read_text().split() for name in "ab"] == [["ready", "saved"]] * 2


def test_a_run_that_fails_stops_the_others_and_says_why(tmp_path: Path) -> None:
    with training_module.Trainings() as trainings:
        trainings._start(tmp_path / "b", [sys.executable, "-c", "import time; time.sleep(60)"])
        trainings._start(tmp_path / "a", [sys.executable, "-c", "print('no disk'); raise SystemExit(3)"])
        with pytest.raises(
            training_module.TrainingFailed, match=r"^a ended with exit code 3: no disk \(full log: .*a\.log"
        ):
            trainings.ended()

    assert [child.returncode is not None for child in trainings._under_way.values()] == [True]


# Carrying it out


class Trainings:
    """Stands in for the real ones: writes what a run of two steps would, or stops at one of them."""

    def __init__(self) -> None:
        self.made: list[tuple[str, int, float]] = []
        self.stop_at: int | None = None
        self.under_way: list[Path] = []
        self.most_at_once = 0
        self.manifests: dict[Path, Mapping[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.under_way.clear()

    def begin(self, manifest: Mapping[str, Any], folder: Path) -> None:
        training = manifest["spec"]["training"]
        self.made.append((training["strategy"], training["seed"], training["learningRate"]))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text("{}")
        self.under_way.append(folder)
        self.most_at_once = max(self.most_at_once, len(self.under_way))
        self.manifests[folder] = manifest

    def ended(self) -> Path:
        if len(self.made) == self.stop_at:
            raise training_module.Stopped
        folder = self.under_way.pop(0)
        training = self.manifests[folder]["spec"]["training"]
        # Lower rates are better on validation problems, and worse on the reported ones.
        good = 1 - 100 * training["learningRate"]
        write_records(folder, [step_record(1)], an_evaluation(1, held_out=1 - good, validation=good))
        (folder / "final").mkdir()
        return folder


def test_a_stopped_study_is_resumed_and_makes_no_run_twice(
    place: carry_out.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = replace(place, scale=replace(SCALE, seeds=2))
    trainings, said = Trainings(), list[str]()
    monkeypatch.setattr(carry_out, "Trainings", lambda: trainings)

    trainings.stop_at = 2
    with pytest.raises(training_module.Stopped):
        carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    assert carry_out.collected(place, ["rounds"], "now").settings == (), "no incomplete part is reported"
    states = [job.state for job in carry_out.expected(place, ["rounds"])]
    assert states == ["finished", "interrupted", *["to do"] * (len(states) - 2)]

    carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    # Three rates on seed 0, the best by validation on both seeds; 4 x 8 on seed 0 was among the three.
    assert trainings.made[:4] == [("seele", 0, 1e-4), *[("seele", 0, 3e-4)] * 2, ("seele", 0, 1e-3)]
    assert set(trainings.made[4:]) == {("seele", 0, 1e-4), ("seele", 1, 1e-4)}
    assert len(trainings.made[4:]) == 2 * 5 - 1
    assert any(line.startswith("[2/12] resuming seele, seed 0, learning rate 0.0003; about ") for line in said)

    study = carry_out.collected(place, ["rounds"], "now")
    assert [result.name for result in study.settings] == ["2 × 16", "4 × 8", "8 × 4", "4 × 6", "4 × 4"]
    assert [[run.seed for run in result.runs] for result in study.settings] == [[0, 1]] * 5
    assert study.rates[0].chosen == 1e-4
    assert {study.sources[0].base_model, *(result.base_model for result in study.settings)} == {
        hashlib.sha256(b"weights").hexdigest()[:12]
    }
    made = len(trainings.made)
    carry_out.carry_out(place, ["rounds"], said.append, clock=lambda: 0.0)
    assert len(trainings.made) == made


def test_the_time_left_is_estimated_from_whole_runs(place: carry_out.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place = replace(place, scale=replace(SCALE, seeds=1, learning_rates=(1e-4, 3e-4)))
    one, *rest = jobs = carry_out.expected(place, ["options"])
    one.folder.mkdir(parents=True)
    (one.folder / "config.yaml").write_text("{}")
    usual = carry_out.seconds_of(place.scale, [one])
    # The first is resumed and ends at once; each of the others takes three times as long as expected.
    times = iter([0.0, 0.0, *(moment for number in range(len(jobs)) for moment in (0.0, 3 * usual))])
    said = list[str]()
    monkeypatch.setattr(carry_out, "Trainings", Trainings)
    carry_out.carry_out(place, ["options"], said.append, clock=lambda: next(times))

    left = [line.rsplit("; ", 1)[1] for line in said if line.startswith("[")]
    assert left[:4] == [
        f"about {carry_out.duration(pace * count * usual)} left"
        for pace, count in [(1, len(jobs)), (1, len(rest)), (3, len(rest) - 1), (3, len(rest) - 2)]
    ]


def test_runs_side_by_side_wait_for_the_learning_rate_that_they_need(
    place: carry_out.Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings, said = Trainings(), list[str]()
    monkeypatch.setattr(carry_out, "Trainings", lambda: trainings)
    place = replace(place, scale=replace(SCALE, seeds=2))

    carry_out.carry_out(place, ["targets"], said.append, clock=lambda: 0.0, at_once=4)

    # Three rates are tried; only after all of them does a fourth run begin, at the best rate.
    assert [rate for _, _, rate in trainings.made] == [1e-4, 3e-4, 1e-3, *[1e-4] * (2 * 5 - 1)]
    assert trainings.most_at_once == 4
    assert len(said) == 2 * len(trainings.made)


def test_a_rate_that_earlier_results_chose_is_not_tried_again(place: carry_out.Place) -> None:
    tried = ((1e-4, 0.1), (3e-4, 0.2), (1e-3, 0.3))
    known = replace(place, chosen=(RateChoice(strategy="seele", tried=tried, chosen=1e-3),))
    assert {job.planned.learning_rate for job in carry_out.expected(known, ["targets"])} == {1e-3}

    another_grid = replace(known, scale=replace(SCALE, learning_rates=(1e-4, 3e-4)))
    assert {job.planned.learning_rate for job in carry_out.expected(another_grid, ["targets"])} == {1e-4, 3e-4}
