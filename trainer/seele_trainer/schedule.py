"""The learning rate of each update, as a pure function of its number."""

from __future__ import annotations

import math

from seele_trainer.config import Training


def learning_rate(training: Training, update: int, total_updates: int) -> float:
    """Learning rate of update number `update`, counted from 0.

    It rises linearly to the peak, which the last of `warmup_updates` reaches, then follows the schedule down to
    `final_learning_rate_ratio` times the peak at the last of `total_updates`.
    """
    peak, warmup = training.learning_rate, training.warmup_updates
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
