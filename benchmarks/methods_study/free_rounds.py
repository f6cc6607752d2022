"""Rounds whose hint a controller was free to choose, from what a run's last checkpoint remembers of its problems.

Over the last half of a training many problems need no hint any more, and nothing is harder than that; others are not solved
behind all that may be shown. A controller answers for the rounds in between.
"""

from __future__ import annotations

from pathlib import Path

from seele_trainer.checkpoint import latest_state

BETWEEN = (0.05, 0.95)
"""No less and no more than these shares of what may be shown."""

Observed = tuple[int, float, float]
"""Number of the round from 0, its successes and its rollouts."""


def free_rounds(folder: Path, first_step: int) -> list[Observed]:
    """Rounds from step `first_step` on, counted from 0, with a hint in between; for each problem, those of its last step.

    Nothing for a run without the shared-ability estimator.
    """
    state = latest_state(folder / "checkpoints")
    if state is None or state.strategy.get("estimator") != "shared-ability":
        return []
    low, high = BETWEEN
    return [
        (number, successes, trials)
        for record in state.strategy["state"]["records"].values()
        if record["step"] >= first_step
        for number, (rate, successes, trials) in enumerate(record["rounds"][-record["latest"] :])
        if low <= rate <= high
    ]
