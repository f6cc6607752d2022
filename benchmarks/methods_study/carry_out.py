"""Carries out the study: a folder per run, what is left to do and for how long, and the results of finished runs."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.methods_study.design import (
    Part,
    Planned,
    Scale,
    Setting,
    best_rate,
    grid,
    method,
    repeated,
    settings,
    steps_of_pass,
    strategies_of,
)
from benchmarks.methods_study.results import (
    HELD_OUT,
    VALIDATION,
    RateChoice,
    SettingResult,
    Source,
    Study,
    measured,
    scale_fields,
)
from benchmarks.methods_study.training import Trainings, is_begun, is_finished, machine, quickstart, revision, versions
from seele_trainer.methods import StrategyName
from seele_trainer.quickstart import chains
from tests.support.spec_data import patched

STARTING_SECONDS = 45.0
STEP_SECONDS = 4.5
"""First estimates for two cores; corrected as runs end."""
TINY_SECONDS = (15.0, 1.0)
Print = Callable[[str], None]


class NoProblems(RuntimeError):
    """The problems are missing. The message says how to make them."""


@dataclass(frozen=True)
class Job:
    """A training and its folder."""

    planned: Planned
    manifest: Mapping[str, Any]
    folder: Path

    @property
    def title(self) -> str:
        """What it trains, in words."""
        return f"{self.planned.setting.name}, seed {self.planned.seed}, learning rate {self.planned.learning_rate:g}"

    @property
    def state(self) -> str:
        """How far it has come."""
        return "finished" if is_finished(self.folder) else "interrupted" if is_begun(self.folder) else "to do"


@dataclass(frozen=True)
class Place:
    """Where the study has its problems and its runs, and how much it trains."""

    problems: Path
    out: Path
    scale: Scale
    chosen: tuple[RateChoice, ...] = ()
    """Learning rates of earlier results; methods whose rate was chosen from the same grid are not tuned again."""

    @property
    def chosen_before(self) -> list[RateChoice]:
        """Those of `chosen` that come from the same grid."""
        return [one for one in self.chosen if [rate for rate, _ in one.tried] == list(self.scale.learning_rates)]

    @property
    def validation_file(self) -> Path:
        """Problems that choose learning rates, neither trained on nor reported; one file per recipe."""
        return self.out / f"validation-{digest_of(self.recipe())}.jsonl"

    def recipe(self) -> dict[str, Any]:
        """How the problems and the base model were made. Raises NoProblems."""
        try:
            recipe: dict[str, Any] = json.loads((self.problems / "recipe.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise NoProblems(
                f"--problems: {self.problems} has no problems and base model: make them with `make quickstart-model`"
            ) from error
        if "longest" not in recipe:
            raise NoProblems(
                f"--problems: {self.problems / 'recipe.json'} is from an earlier version and lacks `longest`: make the "
                "problems again with `make quickstart-model`"
            )
        return recipe

    def base_model(self) -> str:
        """Digest of the base model, since one recipe can give several. Raises NoProblems."""
        weights = self.problems / "base" / "model.safetensors"
        try:
            return _digest_of_file(weights)
        except OSError as error:
            raise NoProblems(
                f"--problems: {weights} cannot be read ({error.strerror}): make it with `make quickstart-model`"
            ) from error

    def make_validation(self) -> None:
        """Draw validation problems, disjoint from training and test problems. Raises NoProblems."""
        recipe = self.recipe()
        known = [*_questions(self.problems / "train.jsonl"), *_questions(self.problems / "test.jsonl")]
        drawn = chains.sample_problems(recipe["test_problems"], recipe["seed"] + 2, frozenset(known), recipe["longest"])
        self.out.mkdir(parents=True, exist_ok=True)
        chains.write_problems(self.validation_file, drawn)

    def job(self, planned: Planned) -> Job:
        """The run of a plan. Its folder is determined by its spec, problems, base model and package versions."""
        changes = patched(lengths(self.recipe()["longest"]), planned.changes(self.scale))
        run = quickstart(self.problems, "study", changes)
        held_out = run["spec"]["evaluation"]["benchmarks"][0] | {"title": HELD_OUT}
        validation = held_out | {"title": VALIDATION, "path": str(self.validation_file)}
        if self.scale.tiny:
            held_out, validation = held_out | {"limit": 16}, validation | {"limit": 16}
        run["spec"]["evaluation"]["benchmarks"] = [held_out, validation]
        origin = {"recipe": self.recipe(), "base": self.base_model(), "versions": versions()}
        digest = digest_of({"run": run, **origin})
        run["metadata"]["name"] = f"{planned.setting.strategy.replace('_', '-')}-{digest}"
        return Job(planned, run, self.out / digest)


def lengths(longest: int) -> dict[str, Any]:
    """Limits for chains of so many operations, as the quickstart's spec has them for its own.

    An operation takes two tokens in a prompt and four in a solution; both limits are rounded up.
    """
    prompt, solution = 2 * longest + 8, 4 * longest + 8
    return {
        "model": {"contextLength": chains.context_length(longest)},
        "dataset": {"maxPromptTokens": prompt, "maxSolutionTokens": solution},
        "rollout": {"maxCompletionTokens": solution},
    }


def digest_of(content: Mapping[str, Any]) -> str:
    """Twelve hexadecimal digits of a digest of the content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


@cache
def _digest_of_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def choices(place: Place, strategies: Sequence[StrategyName]) -> dict[StrategyName, RateChoice]:
    """The learning rate of each method whose candidates have all been tried, here or in earlier results."""
    rates = place.scale.learning_rates
    if len(rates) == 1:
        return {strategy: RateChoice(strategy=strategy, tried=(), chosen=rates[0]) for strategy in strategies}
    found = {choice.strategy: choice for choice in place.chosen_before if choice.strategy in strategies}
    for strategy in strategies:
        jobs = [place.job(planned) for planned in grid([strategy], place.scale)]
        if strategy not in found and all(is_finished(job.folder) for job in jobs):
            tried = {job.planned.learning_rate: measured(job.folder, 0).validation for job in jobs}
            found[strategy] = RateChoice(strategy=strategy, tried=tuple(tried.items()), chosen=best_rate(tried))
    return found


def expected(place: Place, parts: Sequence[Part]) -> list[Job]:
    """All distinct runs that the parts need; the middle of the grid stands for a learning rate that is not chosen yet."""
    strategies = strategies_of(parts)
    middle = place.scale.learning_rates[len(place.scale.learning_rates) // 2]
    chosen = choices(place, strategies)
    rates = {strategy: chosen[strategy].chosen if strategy in chosen else middle for strategy in strategies}
    before = [choice.strategy for choice in place.chosen_before]
    plans = grid([strategy for strategy in strategies if strategy not in before], place.scale)
    plans += [planned for part in parts for planned in repeated(part, place.scale, rates)]
    jobs: dict[Path, Job] = {}
    for job in map(place.job, plans):
        jobs.setdefault(job.folder, job)
    return list(jobs.values())


def carry_out(place: Place, parts: Sequence[Part], say: Print, clock: Callable[[], float], at_once: int = 1) -> None:
    """Train everything that is not finished, `at_once` runs side by side, the grid of learning rates first.

    Raises TrainingFailed and Stopped; the current runs have then saved themselves.
    """
    place.make_validation()
    pace, counted = 1.0, 0
    under_way: dict[Path, tuple[Job, bool, float]] = {}
    with Trainings() as trainings:
        while True:
            # Later runs depend on the rates that the first ones choose, so the list is made again each time.
            jobs = expected(place, parts)
            left = [job for job in jobs if not is_finished(job.folder)]
            if not left:
                return
            for job in _settled(place, parts, left):
                if len(under_way) == at_once:
                    break
                if job.folder in under_way:
                    continue
                fresh = not is_begun(job.folder)
                verb = "training" if fresh else "resuming"
                seconds = pace * seconds_of(place.scale, left) / at_once
                say(f"[{jobs.index(job) + 1}/{len(jobs)}] {verb} {job.title}; about {duration(seconds)} left")
                under_way[job.folder] = job, fresh, clock()
                trainings.begin(job.manifest, job.folder)
            job, fresh, began = under_way.pop(trainings.ended())
            took = clock() - began
            run = measured(job.folder, job.planned.seed)
            say(
                f"    {job.title}: {run.before:.1%} → {run.after:.1%} of held-out problems, {duration(took)}, {job.folder}"
            )
            if fresh:
                # A resumed run does not show how long a whole one takes.
                counted += 1
                pace += (took / seconds_of(place.scale, [job]) - pace) / counted


def _settled(place: Place, parts: Sequence[Part], jobs: Sequence[Job]) -> list[Job]:
    """The jobs whose learning rate is not a guess."""
    chosen = choices(place, strategies_of(parts))
    tried = {place.job(planned).folder for planned in grid(strategies_of(parts), place.scale)}
    return [job for job in jobs if job.folder in tried or job.planned.setting.strategy in chosen]


def collected(place: Place, parts: Sequence[Part], command: str, at_once: int = 1) -> Study:
    """The results of the parts whose runs are all finished."""
    chosen = choices(place, strategies_of(parts))
    rates = {strategy: choice.chosen for strategy, choice in chosen.items()}
    results = [
        result for part in parts if set(strategies_of([part])) <= set(rates) for result in _part(place, part, rates)
    ]
    used = {result.strategy for result in results}
    finished = tuple(part for part in parts if any(result.part == part for result in results))
    source = Source(
        parts=finished,
        command=command,
        machine=machine(),
        base_model=place.base_model(),
        at_once=at_once,
        versions=versions(),
        revision=revision(),
    )
    return Study(
        **scale_fields(place.scale),
        problems=place.recipe(),
        rates=tuple(choice for strategy, choice in chosen.items() if strategy in used),
        sources=(source,) if finished else (),
        settings=tuple(results),
    )


def _part(place: Place, part: Part, rates: Mapping[StrategyName, float]) -> list[SettingResult]:
    jobs = [place.job(planned) for planned in repeated(part, place.scale, rates)]
    if not all(is_finished(job.folder) for job in jobs):
        return []
    seeds = place.scale.seeds
    one_pass = steps_of_pass(place.scale) if part == "estimators" else None
    return [
        SettingResult(
            part=part,
            name=setting.name,
            strategy=setting.strategy,
            changes=_own_changes(setting, place.scale),
            learning_rate=rates[setting.strategy],
            base_model=place.base_model(),
            runs=tuple(
                measured(job.folder, job.planned.seed, one_pass) for job in jobs[index * seeds : (index + 1) * seeds]
            ),
        )
        for index, setting in enumerate(settings(part, place.scale))
    ]


def _own_changes(setting: Setting, scale: Scale) -> dict[str, Any]:
    """The changes of a setting, without those that all settings of its method share."""
    return {} if setting.changes == method(setting.strategy, scale).changes else dict(setting.changes)


def seconds_of(scale: Scale, jobs: Sequence[Job]) -> float:
    """How long whole runs take, by experience with the quickstart on two cores."""
    start, step = TINY_SECONDS if scale.tiny else (STARTING_SECONDS, STEP_SECONDS)
    return len(jobs) * (start + step * scale.steps)


def duration(seconds: float) -> str:
    """A time in words."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _questions(path: Path) -> list[str]:
    return [json.loads(line)["problem"] for line in path.read_text(encoding="utf-8").splitlines()]
