"""What single steps gained on their problems, compared with a(1 - a): the paper's Eq. 5 at one learning rate at a time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods_study.results import TENTHS, Study

FEWEST_GROUPS = 5
"""A tenth with fewer groups is left out: its mean says little."""
MIDDLES = (np.arange(TENTHS) + 0.5) / TENTHS


@dataclass(frozen=True)
class StepGains:
    """One step of all runs that differ only in target and seed, and so have the same learning rate."""

    step: int
    learning_rate: float
    groups: NDArray[np.int64]
    """By tenths of the accuracy, shape (10,)."""
    means: NDArray[np.float64]
    """Mean descent in nats per rollout; NaN for tenths with too few groups. Shape (10,)."""

    @property
    def known(self) -> NDArray[np.bool_]:
        """Tenths that have a mean."""
        return ~np.isnan(self.means)

    @property
    def scale(self) -> float:
        """The c of the best-fitting c·a(1 - a), each tenth weighted by its groups."""
        shape, weights = bound(MIDDLES[self.known]), self.groups[self.known]
        return float((weights * shape * self.means[self.known]).sum() / (weights * shape**2).sum())

    @property
    def explained(self) -> float:
        """Share of the variance of the tenths' means that c·a(1 - a) explains; below 0 if a constant fits better."""
        weights, means = self.groups[self.known], self.means[self.known]
        left = weights @ (means - self.scale * bound(MIDDLES[self.known])) ** 2
        return float(1 - left / (weights @ (means - np.average(means, weights=weights)) ** 2))


def bound(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """a(1 - a)."""
    return accuracy * (1 - accuracy)


def step_gains(study: Study) -> list[StepGains]:
    """Gains pooled over all runs of the part `targets`, whose accuracies spread widest; in the order of steps."""
    found: dict[int, list[tuple[float, NDArray[np.float64]]]] = {}
    for setting in study.part("targets"):
        for gains in (one for run in setting.runs for one in run.gains):
            found.setdefault(gains.step, []).append((gains.learning_rate, np.array([gains.groups, gains.descent])))
    pooled = []
    for step, parts in sorted(found.items()):
        groups, descent = np.sum([part for _, part in parts], axis=0)
        means = np.where(groups >= FEWEST_GROUPS, descent / np.maximum(groups, 1), np.nan)
        one = StepGains(step, parts[0][0], groups.astype(np.int64), means)
        if one.known.sum() > 2:
            pooled.append(one)
    return pooled
