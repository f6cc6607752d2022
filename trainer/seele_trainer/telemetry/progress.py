"""Throughput and remaining time of a run, for /progress and the live display."""

from __future__ import annotations

from collections.abc import Sequence

from seele_trainer.run_folder.records import EvaluationRecord, StepRecord

WINDOW = 20
"""Steps in a moving average: enough to smooth it, few enough to follow shrinking completions."""


def remaining_evaluations(step: int, steps: int, every: int) -> int:
    """Evaluations still due after `step`: one every `every` steps (0: none in between) and one after the last step."""
    if step >= steps:
        return 0
    if every == 0:
        return 1
    return steps // every - step // every + (steps % every != 0)


def remaining_seconds(
    records: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord], steps: int, every: int
) -> float | None:
    """Expected seconds until the run is done, including evaluations; None before the first step.

    A step is expected to take the mean of the last WINDOW steps, an evaluation the mean of the last three.
    """
    if not records:
        return None
    recent = records[-WINDOW:]
    per_step = sum(elapsed_seconds(r) - r.phase_seconds.get("eval", 0.0) for r in recent) / len(recent)
    recent_evaluations = evaluations[-3:]
    per_evaluation = sum(e.seconds for e in recent_evaluations) / len(recent_evaluations) if recent_evaluations else 0.0
    step = records[-1].step
    return max(0, steps - step) * per_step + remaining_evaluations(step, steps, every) * per_evaluation


def elapsed_seconds(record: StepRecord) -> float:
    """Wall-clock seconds of a step, including the evaluation and checkpoint in its phases."""
    return max(record.step_seconds, sum(record.phase_seconds.values()))


def tokens_per_second(records: Sequence[StepRecord]) -> float | None:
    """Generated tokens per second over the last WINDOW steps without evaluations; None before the first step."""
    recent = records[-WINDOW:]
    seconds = sum(elapsed_seconds(record) - record.phase_seconds.get("eval", 0.0) for record in recent)
    return sum(record.tokens.generated for record in recent) / seconds if seconds else None


def held_out_accuracy(evaluation: EvaluationRecord) -> float | None:
    """Mean greedy accuracy over benchmarks; None without benchmarks."""
    scores = [score.greedy_accuracy for score in evaluation.scores.values()]
    return sum(scores) / len(scores) if scores else None
