"""The learning rate of each update."""

from __future__ import annotations

import math

from seele_trainer.config import Training


def learning_rate(training: Training, update: int, total_updates: int) -> float:
    """Learning rate of update number `update`, counted from 0.

    The two phases of sft_then_grpo are scheduled like two runs: each has its own peak, warm-up and schedule.
    """
    if training.strategy != "sft_then_grpo":
        return _scheduled(training, training.learning_rate, update, total_updates)
    supervised = training.sft_steps * training.updates_per_step
    if update < supervised:
        peak = training.sft_then_grpo.sft_learning_rate or training.learning_rate
        return _scheduled(training, peak, update, supervised)
    return _scheduled(training, training.learning_rate, update - supervised, total_updates - supervised)


def _scheduled(training: Training, peak: float, update: int, total_updates: int) -> float:
    """Learning rate of one phase.

    It rises linearly to the peak at the last of `warmup_updates`, then follows the schedule down to
    `final_learning_rate_ratio` times the peak at the last of `total_updates`.
    """
    warmup = training.warmup_updates
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = min(1.0, (update - warmup) / max(1, total_updates - 1 - warmup))
    falling = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[training.learning_rate_schedule]
    final = 1.0 if training.learning_rate_schedule == "constant" else training.final_learning_rate_ratio
    return peak * (final + (1.0 - final) * falling)
