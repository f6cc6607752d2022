"""What is measured of a run, and the JSON file of the whole study."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.methods_study.design import PARTS, Part, Scale
from benchmarks.methods_study.intervals import Interval, interval, mean
from seele_trainer.frozen_model import FrozenModel
from seele_trainer.hints.shared_ability import Round
from seele_trainer.methods import StrategyName
from seele_trainer.run_folder.checkpoint import latest_state
from seele_trainer.run_folder.journal import read_records
from seele_trainer.run_folder.records import EvaluationRecord, StepRecord, Tokens

HELD_OUT, VALIDATION = "held-out", "validation"
PARTS_OF_TRAINING = TENTHS = 10
"""Accuracy by round is kept as means over tenths of the training."""
ON_EVERY_BASE: tuple[Part, ...] = ("methods", "targets")
"""Parts whose results are kept for every base model; of the others only the latest results are."""
SHORTEST, LONGEST = 0.05, 0.95
"""Hints of less or more than these shares could hardly have been shorter, or longer."""

Means = tuple[float | None, ...]


class BadResults(RuntimeError):
    """The JSON of a study cannot be read. The message names the file and the remedy."""


class Gains(FrozenModel):
    """Baseline groups of one step by tenths of their accuracy: how many there are, and their summed descent in nats."""

    step: int
    learning_rate: float
    groups: tuple[int, ...]
    descent: tuple[float, ...]


class Run(FrozenModel):
    """One training on one seed. Accuracies are greedy, without hints, on problems that were not trained on."""

    seed: int
    folder: str
    evaluated_at: tuple[int, ...]
    """Steps after which the held-out problems were evaluated, starting with 0."""
    held_out: tuple[float, ...]
    """Accuracy at those steps."""
    validation: float
    """Final accuracy on the problems that choose the learning rate."""
    rollouts: int
    tokens: Tokens
    """Totals of the run. `loss` counts tokens with gradients (0 in older results, which lack it); `trained` those in forward
    passes, after identical rollouts are merged."""
    accuracy_by_round: tuple[Means, ...]
    """With hints, for each tenth of the training; empty for methods without rollouts."""
    late_accuracy_by_round: Means
    """With hints, over the last half of the training."""
    free_reward: float | None = None
    """Accuracy of late rollouts whose hint could have been both shorter and longer; see `late_rounds`."""
    unhinted_share: float | None = None
    """Share of late rollouts with almost no hint: no controller can make these harder."""
    unhinted_reward: float | None = None
    whole_share: float | None = None
    """Share of late rollouts with almost the longest hint: no controller can make these easier."""
    whole_reward: float | None = None
    late_reward: float | None
    late_hint_rate: float | None
    efficiency: float | None
    """Mean of 4a(1 - a) over all baseline groups of the run."""
    zero_gradient_groups: float | None
    second_pass_first_round: float | None = None
    """Accuracy of first rounds during the second pass over the problems; only in the part `estimators`."""
    gains: tuple[Gains, ...] = ()
    """Of the evaluated steps, for methods with advantages."""
    minutes: float

    @property
    def before(self) -> float:
        """Held-out accuracy of the base model."""
        return self.held_out[0]

    @property
    def after(self) -> float:
        """Held-out accuracy after the last step."""
        return self.held_out[-1]


class SettingResult(FrozenModel):
    """A setting of one part, with its runs in the order of their seeds."""

    part: Part
    name: str
    strategy: StrategyName
    changes: dict[str, Any]
    learning_rate: float
    base_model: str | None = None
    """Digest of the weights it was trained from; None in older results."""
    runs: tuple[Run, ...]

    @property
    def after(self) -> Interval:
        """Held-out accuracy after the last step, over the seeds."""
        return interval([run.after for run in self.runs])

    @property
    def target(self) -> float:
        """The target accuracy, in the part `targets`."""
        return float(self.name.removeprefix("target "))

    def mean(self, field: str) -> float | None:
        """Mean of a field of the runs."""
        return self.mean_of(lambda run: getattr(run, field))

    def mean_of(self, value: Callable[[Run], float | None]) -> float | None:
        """Mean of a value of the runs, over those that have it."""
        return mean(map(value, self.runs))


class RateChoice(FrozenModel):
    """How a method's learning rate was chosen: validation accuracy of each candidate on the first seed."""

    strategy: StrategyName
    tried: tuple[tuple[float, float], ...]
    chosen: float


class Source(FrozenModel):
    """How some parts were run."""

    parts: tuple[Part, ...]
    command: str
    machine: dict[str, str | int]
    base_model: str | None = None
    at_once: int
    """Runs that were trained side by side."""
    versions: dict[str, str]
    revision: str | None = None
    """Commit at which the results were collected, with a `+` if files were changed; None in older results."""


class Study(FrozenModel):
    """All results behind docs/benchmarks.md."""

    tiny: bool
    problems: dict[str, Any]
    """Recipe of the problems and the base model."""
    steps: int
    seeds: int
    problems_per_step: int
    rollouts_per_problem: int
    rates: tuple[RateChoice, ...]
    sources: tuple[Source, ...]
    settings: tuple[SettingResult, ...]

    def part(self, part: Part) -> list[SettingResult]:
        """The settings of one part, for its latest base model; empty if it was not run."""
        return next(iter(self.by_base_model(part).values()), [])

    def by_base_model(self, part: Part) -> dict[str | None, list[SettingResult]]:
        """The settings of one part by base model, the latest first."""
        found: dict[str | None, list[SettingResult]] = {}
        for setting in self.settings:
            if setting.part == part:
                found.setdefault(setting.base_model, []).append(setting)
        return dict(reversed(found.items()))

    def trained(self, scale: Scale, recipe: Mapping[str, Any]) -> bool:
        """Whether its runs have this scale and these problems, so that other parts may be added."""
        same_scale = all(getattr(self, name) == value for name, value in scale_fields(scale).items())
        return same_scale and self.problems == recipe

    def beside(self, earlier: "Study") -> "Study":
        """This study with an earlier one's parts and learning rates added.

        Parts that both have are taken from this study; those in `ON_EVERY_BASE` are kept for other base models too.
        """
        own = {(setting.part, setting.base_model) for setting in self.settings}
        parts = {part for part, _ in own}

        def stays(part: Part, base_model: str | None) -> bool:
            return part not in parts or (part in ON_EVERY_BASE and (part, base_model) not in own)

        ours = {choice.strategy for choice in self.rates}
        sources = [
            source.model_copy(update={"parts": tuple(part for part in source.parts if stays(part, source.base_model))})
            for source in earlier.sources
        ]
        kept = [setting for setting in earlier.settings if stays(setting.part, setting.base_model)]
        settings = [setting for part in PARTS for setting in (*kept, *self.settings) if setting.part == part]
        return self.model_copy(
            update={
                "rates": (*self.rates, *(choice for choice in earlier.rates if choice.strategy not in ours)),
                "sources": (*(source for source in sources if source.parts), *self.sources),
                "settings": tuple(settings),
            }
        )


def scale_fields(scale: Scale) -> dict[str, Any]:
    """The fields of a scale that a study records."""
    return {name: value for name, value in asdict(scale).items() if name in Study.model_fields}


def measured(folder: Path, seed: int, steps_of_pass: int | None = None) -> Run:
    """Measure a finished run; with `steps_of_pass`, also first rounds of the second pass. Raises JournalError."""
    steps = read_records(folder / "metrics.jsonl", StepRecord)
    evaluations = read_records(folder / "eval.jsonl", EvaluationRecord)
    run = measured_from(steps, evaluations, folder.name, seed, steps_of_pass)
    late = late_rounds(folder, len(steps) // 2)
    unhinted = [one for one in late if one.rate < SHORTEST]
    whole = [one for one in late if one.rate > LONGEST]
    return run.model_copy(
        update={
            "free_reward": _accuracy([one for one in late if SHORTEST <= one.rate <= LONGEST]),
            "unhinted_share": _share(unhinted, late),
            "unhinted_reward": _accuracy(unhinted),
            "whole_share": _share(whole, late),
            "whole_reward": _accuracy(whole),
        }
    )


def measured_from(
    steps: Sequence[StepRecord],
    evaluations: Sequence[EvaluationRecord],
    folder: str,
    seed: int,
    steps_of_pass: int | None = None,
) -> Run:
    """Measure a run by its records alone."""
    late = steps[len(steps) // 2 :]
    second = [] if steps_of_pass is None else steps[steps_of_pass : 2 * steps_of_pass]
    tokens = [record.tokens for record in steps]
    seconds = sum(record.step_seconds for record in steps) + sum(evaluation.seconds for evaluation in evaluations)
    return Run(
        seed=seed,
        folder=folder,
        evaluated_at=tuple(evaluation.step for evaluation in evaluations),
        held_out=tuple(_rounded(evaluation.scores[HELD_OUT].greedy_accuracy) for evaluation in evaluations),
        validation=_rounded(evaluations[-1].scores[VALIDATION].greedy_accuracy),
        rollouts=sum(record.rollouts for record in steps),
        tokens=Tokens(**{kind: sum(getattr(one, kind) for one in tokens) for kind in Tokens.model_fields}),
        accuracy_by_round=tuple(_by_round(part) for part in _tenths(steps)) if _by_round(steps) else (),
        late_accuracy_by_round=_by_round(late),
        late_reward=_mean(late, lambda record: record.reward),
        late_hint_rate=_mean(late, lambda record: record.hint_rate),
        efficiency=_mean(steps, lambda record: record.learning_efficiency),
        zero_gradient_groups=_mean(steps, lambda record: record.zero_gradient_groups),
        second_pass_first_round=_mean(second, lambda record: record.accuracy_by_round[0]) if second else None,
        gains=tuple(_gains(record) for record in steps if record.descents),
        minutes=round(seconds / 60, 2),
    )


def late_rounds(folder: Path, first_step: int) -> list[Round]:
    """Each problem's rounds in its last step, if that is `first_step` (from 0) or later, from the last checkpoint.

    Late in a training many problems need no hint at all, and some are not solved even with the longest one; the controller is
    responsible only for the rounds in between. Empty without the shared-ability estimator.
    """
    state = latest_state(folder / "checkpoints")
    if state is None or state.strategy.get("estimator") != "shared-ability":
        return []
    return [
        Round(*seen)
        for record in state.strategy["state"]["records"].values()
        if record["step"] >= first_step
        for seen in record["rounds"][-record["latest"] :]
    ]


def load(path: Path) -> Study:
    """Read a study's JSON. Raises BadResults."""
    try:
        return Study.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise BadResults(f"{path}: {first}; run `make bench-methods` to write it again") from error


def save(study: Study, path: Path) -> None:
    """Write a study's JSON atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.write_text(study.model_dump_json(by_alias=True, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(path)


def _tenths(steps: Sequence[StepRecord]) -> list[Sequence[StepRecord]]:
    parts = min(PARTS_OF_TRAINING, len(steps))
    edges = [round(index * len(steps) / parts) for index in range(parts + 1)]
    return [steps[start:end] for start, end in pairwise(edges)]


def _by_round(steps: Sequence[StepRecord]) -> Means:
    rounds = max((len(record.accuracy_by_round) for record in steps), default=0)
    return tuple(_rounded_mean([record.accuracy_by_round[index] for record in steps]) for index in range(rounds))


def _gains(record: StepRecord) -> Gains:
    groups, descent = [0] * TENTHS, [0.0] * TENTHS
    for one in record.descents:
        tenth = min(int(one.accuracy * TENTHS), TENTHS - 1)
        groups[tenth] += 1
        descent[tenth] += one.descent
    return Gains(
        step=record.step,
        learning_rate=record.learning_rate,
        groups=tuple(groups),
        descent=tuple(_rounded(value) for value in descent),
    )


def _accuracy(rounds: Sequence[Round]) -> float | None:
    return _rounded(sum(one.successes for one in rounds) / _rollouts(rounds)) if rounds else None


def _share(rounds: Sequence[Round], of: Sequence[Round]) -> float | None:
    return _rounded(_rollouts(rounds) / _rollouts(of)) if of else None


def _rollouts(rounds: Sequence[Round]) -> float:
    return sum(one.trials for one in rounds)


def _mean(steps: Sequence[StepRecord], value: Callable[[StepRecord], float | None]) -> float | None:
    return _rounded_mean([value(record) for record in steps])


def _rounded(value: float) -> float:
    return round(value, 6)


def _rounded_mean(values: Sequence[float | None]) -> float | None:
    found = mean(values)
    return None if found is None else _rounded(found)
