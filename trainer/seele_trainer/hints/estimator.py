"""What every estimator of hinting rates offers to the controller."""

from __future__ import annotations

from typing import Any, Protocol

from seele_trainer.hints.irt import Curve


class Estimator(Protocol):
    """Decides hinting rates. Its arguments were checked: rates in [0, 1], 0 <= successes <= trials, trials > 0."""

    def propose(self, problem_id: str) -> float:
        """The next rate of a problem, in [0, 1]."""

    def observe(self, problem_id: str, rate: float, successes: float, trials: float) -> bool:
        """Take in one round; False where the data defeated the estimator, which then went on without them."""

    def end_step(self) -> None:
        """Close a training step: the model is about to change."""

    def curves(self) -> Curve:
        """Curves of the problems observed in this step, fields of shape (problems,)."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
