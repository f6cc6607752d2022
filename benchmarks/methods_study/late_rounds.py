"""Rounds of the last steps by the room that their hint left, from what a run's last checkpoint remembers of its problems.

Over the last half of a training many problems need no hint any more, and nothing is harder than that; others are not solved
behind all that may be shown. A controller answers for the rounds in between.
"""

from __future__ import annotations

from pathlib import Path

from seele_trainer.hints.explanation import Round
from seele_trainer.run_folder.checkpoint import latest_state

BETWEEN = (0.05, 0.95)
"""No less and no more than these shares of what may be shown."""


class LateRound(Round):
    """A round of a problem in its last step."""

    @property
    def free(self) -> bool:
        """Whether its hint could have been shorter, and longer."""
        return BETWEEN[0] <= self.rate <= BETWEEN[1]

    @property
    def unhinted(self) -> bool:
        """Whether nothing harder could have been shown."""
        return self.rate < BETWEEN[0]

    @property
    def whole(self) -> bool:
        """Whether nothing easier could have been shown."""
        return self.rate > BETWEEN[1]


def late_rounds(folder: Path, first_step: int) -> list[LateRound]:
    """Rounds from step `first_step` on, counted from 0; for each problem, those of its last step.

    Nothing for a run without the shared-ability estimator.
    """
    state = latest_state(folder / "checkpoints")
    if state is None or state.strategy.get("estimator") != "shared-ability":
        return []
    return [
        LateRound(*seen)
        for record in state.strategy["state"]["records"].values()
        if record["step"] >= first_step
        for seen in record["rounds"][-record["latest"] :]
    ]
