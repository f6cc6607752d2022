"""The figures and tables of a report, computed from a run's records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seele_trainer.report.plots import PHASES
from seele_trainer.run_folder.records import EvaluationRecord, SampleRollout, StepRecord

FIRST_AND_LAST = 5
"""Steps averaged for a "first" and a "last" figure, since single steps are noisy."""

SAMPLES_PER_STAGE = 3


@dataclass(frozen=True)
class Change:
    """A figure at the beginning and at the end of a run."""

    first: float
    last: float


@dataclass(frozen=True)
class BenchmarkRow:
    """One benchmark without hints: greedy accuracy, and avg@k if it was sampled (`samples` is k)."""

    title: str
    problems: int
    greedy: Change
    sampled: Change | None
    samples: int


@dataclass(frozen=True)
class RoundRow:
    """One round of a problem: means over the last half of the steps, and the accuracy's distance from the target."""

    round: int
    accuracy: float
    distance: float
    hint_rate: float | None


@dataclass(frozen=True)
class PhaseRow:
    """One phase: seconds in total and per step, and its share of the run's time."""

    phase: str
    seconds: float
    per_step: float
    share: float


@dataclass(frozen=True)
class Stage:
    """Rollouts from one part of the run."""

    title: str
    step: int
    rollouts: tuple[SampleRollout, ...]


@dataclass(frozen=True)
class Summary:
    """Headline and tables of a report. `accuracy` is held-out, without hints; None if not measured.

    `hinted` says whether any rollout had a hint.
    """

    steps: int
    accuracy: Change | None
    evaluated_steps: tuple[int, int] | None
    probes: Change | None
    hint_rate: Change | None
    hinted: bool
    reward: Change | None
    target: float
    tokens_generated: int
    tokens_trained: int
    rollouts: int
    seconds: float
    verifier_timeouts: int
    benchmarks: tuple[BenchmarkRow, ...]
    rounds: tuple[RoundRow, ...]
    half_from: int
    learning_efficiency: float | None
    zero_gradient_groups: float | None
    phases: tuple[PhaseRow, ...]
    working_share: float


def summarise_run(steps: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]) -> Summary:
    """Figures of a run of at least one step."""
    half = steps[len(steps) // 2 :]
    phases = _phases(steps, evaluations)
    scored = [(e.step, accuracy) for e in evaluations if (accuracy := e.accuracy) is not None]
    return Summary(
        steps=steps[-1].step,
        accuracy=Change(scored[0][1], scored[-1][1]) if scored else None,
        evaluated_steps=(scored[0][0], scored[-1][0]) if scored else None,
        probes=_change([record.unhinted_accuracy for record in steps]),
        hint_rate=_change([record.hint_rate for record in steps]),
        hinted=any(record.hint_rate for record in steps),
        reward=_change([record.reward for record in steps]),
        target=steps[-1].target_accuracy,
        tokens_generated=sum(record.tokens.generated for record in steps),
        tokens_trained=sum(record.tokens.trained for record in steps),
        rollouts=sum(record.rollouts for record in steps),
        seconds=sum(row.seconds for row in phases),
        verifier_timeouts=sum(record.verifier_timeouts for record in steps),
        benchmarks=_benchmarks(evaluations),
        rounds=_rounds(half),
        half_from=half[0].step,
        learning_efficiency=_mean([record.learning_efficiency for record in half]),
        zero_gradient_groups=_mean([record.zero_gradient_groups for record in half]),
        phases=phases,
        working_share=sum(row.share for row in phases if row.phase in ("rollout", "train")),
    )


def stages(samples: Sequence[SampleRollout]) -> tuple[Stage, ...]:
    """A few rollouts from the beginning, the middle and the end of a run."""
    at = sorted({sample.step for sample in samples})
    if not at:
        return ()
    chosen = {at[0]: "Early", at[len(at) // 2]: "Middle", at[-1]: "Late"}
    # With fewer than three steps there is no middle, and a single step is the last one.
    if len(chosen) < 3:
        chosen = {step: "Early" if step == at[0] and len(at) > 1 else "Late" for step in chosen}
    return tuple(
        Stage(title, step, tuple(_telling([sample for sample in samples if sample.step == step])))
        for step, title in sorted(chosen.items())
    )


def _telling(samples: Sequence[SampleRollout]) -> list[SampleRollout]:
    """A right answer, a wrong one and one without a hint, if there are; then whichever come first."""
    picked: list[SampleRollout] = []
    right = [sample for sample in samples if sample.hint and sample.reward]
    wrong = [sample for sample in samples if sample.hint and sample.reward == 0]
    unhinted = [sample for sample in samples if not sample.hint]
    for candidates in (right, wrong, unhinted, samples, samples):
        picked += [sample for sample in candidates if sample not in picked][:1]
    return picked[:SAMPLES_PER_STAGE]


def _change(values: Sequence[float | None]) -> Change | None:
    measured = [value for value in values if value is not None]
    first, last = _mean(measured[:FIRST_AND_LAST]), _mean(measured[-FIRST_AND_LAST:])
    return None if first is None or last is None else Change(first, last)


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return float(np.mean(measured)) if measured else None


def _benchmarks(evaluations: Sequence[EvaluationRecord]) -> tuple[BenchmarkRow, ...]:
    rows = []
    for title in dict.fromkeys(title for evaluation in evaluations for title in evaluation.scores):
        scores = [evaluation.scores[title] for evaluation in evaluations if title in evaluation.scores]
        sampled = [score.sampled_accuracy for score in scores if score.sampled_accuracy is not None]
        rows.append(
            BenchmarkRow(
                title=title,
                problems=scores[-1].problems,
                greedy=Change(scores[0].greedy_accuracy, scores[-1].greedy_accuracy),
                sampled=Change(sampled[0], sampled[-1]) if sampled else None,
                samples=scores[-1].samples,
            )
        )
    return tuple(rows)


def _rounds(half: Sequence[StepRecord]) -> tuple[RoundRow, ...]:
    rows = []
    for index in range(max(len(record.accuracy_by_round) for record in half)):
        accuracies = _measured([record.accuracy_by_round for record in half], index)
        rates = _measured([record.hint_rate_by_round for record in half], index)
        if accuracies:
            accuracy = float(np.mean(accuracies))
            distance = accuracy - half[-1].target_accuracy
            rows.append(RoundRow(index + 1, accuracy, distance, float(np.mean(rates)) if rates else None))
    return tuple(rows)


def _measured(by_round: Sequence[Sequence[float | None]], index: int) -> list[float]:
    return [value for values in by_round if index < len(values) and (value := values[index]) is not None]


def _phases(steps: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord]) -> tuple[PhaseRow, ...]:
    seconds: dict[str, float] = {
        phase: sum((record.phase_seconds.get(phase, 0.0) for record in steps), start=0.0) for phase in PHASES
    }
    rest = sum(record.elapsed_seconds - sum(record.phase_seconds.values()) for record in steps)
    if not seconds["eval"]:
        # Evaluations that are not part of a step's line.
        seconds["eval"] = sum(evaluation.seconds for evaluation in evaluations)
    seconds["other"] = rest
    total = sum(seconds.values()) or 1.0
    return tuple(
        PhaseRow(name, amount, amount / len(steps), amount / total) for name, amount in seconds.items() if amount > 0
    )
