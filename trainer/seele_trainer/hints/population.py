"""The prior of a new problem: the distribution of problems in the data set, learned during the run."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from seele_trainer.hints import grid
from seele_trainer.hints.irt import Floats

# Difficulties are rates relative to an average problem: a mixture of Gaussians at fixed centres with learned weights,
# not one Gaussian, because a data set may contain two kinds of problems.
CENTRES: Floats = np.linspace(-0.9, 0.9, 19)
CENTRE_SD = 0.07
PRIOR_PROBLEMS = 4.0
"""The prior counts as this many problems."""
# Curves change shape as the model learns: a step keeps this share of the counts, or this many problems, which are few
# enough to follow changes and enough to describe a data set.
KEPT = 0.5
MEMORY_PROBLEMS = 20.0


def _counts(density: Floats) -> Floats:
    return np.asarray(PRIOR_PROBLEMS * density / density.sum())


@dataclass
class Population:
    """Counts of problems, as posterior expectations: by difficulty, discrimination and guessing."""

    difficulty: Floats
    discrimination: Floats
    guessing: Floats

    @classmethod
    def unknown(cls) -> Self:
        """Before any data: difficulties within about 0.25, k near 9, little guessing."""
        return cls(
            difficulty=_counts(np.exp(-0.5 * (CENTRES / 0.25) ** 2)),
            discrimination=_counts(np.exp(-0.5 * (np.log(grid.DISCRIMINATION / 9.0) / 0.7) ** 2)),
            guessing=_counts(np.exp(-grid.GUESSING / 0.12)),
        )

    def add(self, difficulty: Floats, discrimination: Floats, guessing: Floats) -> None:
        """Count one more problem by its posterior weights."""
        self.difficulty = self.difficulty + difficulty
        self.discrimination = self.discrimination + discrimination
        self.guessing = self.guessing + guessing

    def end_step(self) -> None:
        """Reduce the counts, because the model changes now."""
        keep = max(KEPT, min(1.0, MEMORY_PROBLEMS / float(self.difficulty.sum())))
        self.difficulty = keep * self.difficulty
        self.discrimination = keep * self.discrimination
        self.guessing = keep * self.guessing

    def state_dict(self) -> dict[str, Any]:
        """The three lists of counts."""
        return {name: counts.tolist() for name, counts in self.__dict__.items()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Restore `state_dict`."""
        return cls(**{name: np.array(counts, dtype=np.float64) for name, counts in state.items()})
