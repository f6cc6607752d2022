"""What an estimator knows of one problem, for people: the curve that it believes in, and the rounds that it saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from seele_trainer.hints import grid
from seele_trainer.hints.irt import Floats

BAND = (0.1, 0.9)
"""Quantiles between which the posterior of the accuracy is drawn."""


@dataclass(frozen=True)
class Round:
    """Rollouts after one hint: its rate, and how many of them succeeded."""

    rate: float
    successes: float
    trials: float


@dataclass(frozen=True)
class Explanation:
    """Posterior of the accuracy by hinting rate, at the ability of the moment, and the rounds that were kept.

    `accuracy` is the posterior mean, `low` and `high` its quantiles `BAND`: shape (rates,), at `grid.RATES`. `proposed` is
    the rate that the next hint would have. `earlier` and `latest` are rounds, oldest first; those of the last step that
    the problem was in are the latest.
    """

    problem_id: str
    accuracy: Floats
    low: Floats
    high: Floats
    proposed: float
    earlier: tuple[Round, ...]
    latest: tuple[Round, ...]


def band(curves: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean accuracy and the quantiles `BAND` of a posterior over the grid's curves, each of shape (rates,)."""
    weights = curves.ravel() / curves.sum()
    likely = weights > 1e-6
    weights = weights[likely] / weights[likely].sum()
    found = np.empty((3, len(grid.RATES)))
    for index, rate in enumerate(grid.RATES):
        accuracy = grid.accuracy(rate).ravel()[likely]
        order = np.argsort(accuracy)
        found[0, index] = weights @ accuracy
        found[1:, index] = accuracy[order][np.searchsorted(np.cumsum(weights[order]), BAND)]
    mean, low, high = found
    return mean, low, high
