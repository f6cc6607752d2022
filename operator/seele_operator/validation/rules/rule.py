"""One rule in CEL, and where it stands in a SeeleRun."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """What must hold at one place of a SeeleRun."""

    place: str
    """Dotted path from the root of the object; `[]` stands for each entry of a list."""
    expression: str
    """CEL, with `self` for the value at that place; a null there counts as absent, and defaults are filled in."""
    message: str
    """The field, what is wrong with it, and the remedy, as `seele validate` says it."""


def is_one_of(strategies: Iterable[str]) -> str:
    """Whether the run's strategy is one of these."""
    return "(" + " || ".join(f"self.training.strategy == '{name}'" for name in strategies) + ")"


PROBLEM_ROLLOUTS = "self.hints.rounds * self.hints.rolloutsPerRound"
