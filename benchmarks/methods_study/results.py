"""What is measured of a run, and the committed JSON that holds the whole study."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from benchmarks.methods_study.design import PARTS, Part, Scale
from benchmarks.methods_study.intervals import mean
from benchmarks.methods_study.late_rounds import LateRound, late_rounds
from seele_trainer.frozen_model import FrozenModel
from seele_trainer.methods import StrategyName
from seele_trainer.run_folder.journal import read_records
from seele_trainer.run_folder.records import EvaluationRecord, StepRecord, Tokens

HELD_OUT, VALIDATION = "held-out", "validation"
PARTS_OF_TRAINING = TENTHS = 10
"""Accuracy by round is kept as means over tenths of the training."""
ON_EVERY_BASE: tuple[Part, ...] = ("methods", "targets")
"""Results of these parts are kept from every base model that they were run from: what holds for one model need not hold for
the next. Of the other parts the last are kept."""

Means = tuple[float | None, ...]


class BadResults(RuntimeError):
    """The JSON of a study cannot be read. The message names the file and what to do."""


class Gains(FrozenModel):
    """What one step gained on its baseline groups, by tenths of their accuracy: groups, and their descents in nats together."""

    step: int
    learning_rate: float
    groups: tuple[int, ...]
    descent: tuple[float, ...]


class Run(FrozenModel):
    """One training on one seed. Accuracies are greedy and without hints, on problems that nobody trained on."""

    seed: int
    folder: str
    evaluated_at: tuple[int, ...]
    """Steps after which the held-out problems were answered; the first is 0."""
    held_out: tuple[float, ...]
    """Accuracy at those steps."""
    validation: float
    """Final accuracy on the problems that only choose learning rates."""
    rollouts: int
    tokens: Tokens
    """Of the whole run. `loss` are the tokens that gradients come from, 0 in results of before they were counted; `trained` are
    tokens in forward passes, after identical rollouts are merged."""
    accuracy_by_round: tuple[Means, ...]
    """With hints, for each tenth of the training; empty for methods without rollouts."""
    late_accuracy_by_round: Means
    """With hints, over the last half of the training."""
    free_reward: float | None = None
    """With hints, over the last half, of rounds whose hint was neither none nor whole (methods_study/late_rounds.py)."""
    unhinted_share: float | None = None
    """Share of the rollouts of the last half whose hint was next to none: no controller can make these harder."""
    unhinted_reward: float | None = None
    whole_share: float | None = None
    """Share of those whose hint was next to all that may be shown: no controller can make these easier."""
    whole_reward: float | None = None
    late_reward: float | None
    late_hint_rate: float | None
    efficiency: float | None
    """Mean of 4a(1 - a) over all baseline groups of the run."""
    zero_gradient_groups: float | None
    second_pass_first_round: float | None = None
    """Accuracy of first rounds while the problems are seen for the second time; where a part asks for it."""
    gains: tuple[Gains, ...] = ()
    """Of the steps that are evaluated, for methods with advantages (seele_trainer/descent.py)."""
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
    """Digest of the weights it was trained from: each machine makes its own, and the same recipe does not give the same
    everywhere. None in results that do not say."""
    runs: tuple[Run, ...]


class RateChoice(FrozenModel):
    """How a method got its learning rate: validation accuracy of each that was tried, on the first seed."""

    strategy: StrategyName
    tried: tuple[tuple[float, float], ...]
    chosen: float


class Source(FrozenModel):
    """Where some parts come from."""

    parts: tuple[Part, ...]
    command: str
    machine: dict[str, str | int]
    base_model: str | None = None
    at_once: int
    """Runs that were trained side by side: they take longer each, and less time in all."""
    versions: dict[str, str]
    revision: str | None = None
    """Commit that its runs were collected at, with a `+` where files were changed; None in results that do not say."""


class Study(FrozenModel):
    """Everything that docs/benchmarks.md shows."""

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
        """The settings of one part, from the last base model that it was run from; none where it was not run."""
        return next(iter(self.by_base_model(part).values()), [])

    def by_base_model(self, part: Part) -> dict[str | None, list[SettingResult]]:
        """The settings of one part by the base model that it was run from, the last one first."""
        found: dict[str | None, list[SettingResult]] = {}
        for setting in self.settings:
            if setting.part == part:
                found.setdefault(setting.base_model, []).append(setting)
        return dict(reversed(found.items()))

    def trained(self, scale: Scale, recipe: Mapping[str, Any]) -> bool:
        """Whether its runs are of this scale and on these problems, so that parts of another session may stand beside them."""
        return (
            self.tiny,
            self.problems,
            self.steps,
            self.seeds,
            self.problems_per_step,
            self.rollouts_per_problem,
        ) == (
            scale.tiny,
            dict(recipe),
            scale.steps,
            scale.seeds,
            scale.problems_per_step,
            scale.rollouts_per_problem,
        )

    def beside(self, earlier: Study) -> Study:
        """This study with what an earlier one has beside it, and the learning rates that that was run with.

        A part that both have is the earlier one's no more, except from another base model where `ON_EVERY_BASE` has it.
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


def measured(folder: Path, seed: int, steps_of_pass: int | None = None) -> Run:
    """Measure a finished run; `steps_of_pass` asks for first rounds of the second pass. Raises JournalError."""
    steps = read_records(folder / "metrics.jsonl", StepRecord)
    evaluations = read_records(folder / "eval.jsonl", EvaluationRecord)
    run = measured_from(steps, evaluations, folder.name, seed, steps_of_pass)
    late = late_rounds(folder, len(steps) // 2)
    unhinted, whole = [one for one in late if one.unhinted], [one for one in late if one.whole]
    return run.model_copy(
        update={
            "free_reward": _accuracy([one for one in late if one.free]),
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
    """What a run's records say."""
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


def load(path: Path) -> Study:
    """Read a study's JSON. Raises BadResults."""
    try:
        return Study.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise BadResults(f"{path}: {first}; run `make bench-methods` to write it anew") from error


def save(study: Study, path: Path) -> None:
    """Write a study's JSON, whole or not at all."""
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


def _accuracy(rounds: Sequence[LateRound]) -> float | None:
    return _rounded(sum(one.successes for one in rounds) / _rollouts(rounds)) if rounds else None


def _share(rounds: Sequence[LateRound], of: Sequence[LateRound]) -> float | None:
    return _rounded(_rollouts(rounds) / _rollouts(of)) if of else None


def _rollouts(rounds: Sequence[LateRound]) -> float:
    return sum(one.trials for one in rounds)


def _mean(steps: Sequence[StepRecord], value: Callable[[StepRecord], float | None]) -> float | None:
    return _rounded_mean([value(record) for record in steps])


def _rounded(value: float) -> float:
    return round(value, 6)


def _rounded_mean(values: Sequence[float | None]) -> float | None:
    found = mean(values)
    return None if found is None else _rounded(found)
