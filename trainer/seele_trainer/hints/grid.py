"""The grid of curves that a posterior is summed over: guessing b, discrimination k, threshold.

Arrays with three axes have them in the order (b, k, threshold): the longest last, which is fastest.
"""

import numpy as np

from seele_trainer.hints.irt import Floats, sigmoid

DISCRIMINATION: Floats = np.geomspace(2.5, 50.0, 8)
# The threshold may lie beyond the longest hint, or below no hint.
THRESHOLD: Floats = np.linspace(-1.0, 2.0, 91)
# Mass and first two moments of a density over the thresholds, as one product.
THRESHOLD_MOMENTS: Floats = np.stack([np.ones_like(THRESHOLD), THRESHOLD, THRESHOLD**2], axis=1)
GUESSING: Floats = np.array([0.0, 0.08, 0.2, 0.35, 0.55])
SHAPE = (len(GUESSING), len(DISCRIMINATION), len(THRESHOLD))
# Nothing is certain: verifiers err, and curves are not exactly logistic. This also keeps logarithms finite.
LAPSE = 0.02

# More rollouts than this in one round add no information: the model of the curve is not that exact.
MAX_TRIALS = 500.0

_FLOOR: Floats = (0.5 * LAPSE + (1.0 - LAPSE) * GUESSING)[:, None, None]
_RISE: Floats = ((1.0 - LAPSE) * (1.0 - GUESSING))[:, None, None]

RATES: Floats = np.linspace(0.0, 1.0, 101)
# (rates, k * thresholds): the logistic part of every curve at every rate.
_SLOPES: Floats = sigmoid(DISCRIMINATION[:, None] * (RATES[:, None, None] - THRESHOLD)).reshape(len(RATES), -1)
BAND = (0.1, 0.9)
"""Quantiles between which the posterior of the accuracy is drawn in plots."""


def accuracy(rate: float) -> Floats:
    """Accuracy after a hint of this rate, of every curve of the grid."""
    # Without the clipping of `sigmoid`: on this grid the exponent is at most 100.
    slope = 1.0 / (1.0 + np.exp(DISCRIMINATION[:, None] * (THRESHOLD - rate)))
    return np.asarray(_FLOOR + _RISE * slope)


def log_likelihood(rate: float, successes: float, trials: float) -> Floats:
    """Binomial log-likelihood of every curve of the grid, up to a constant."""
    solved = accuracy(rate)
    scale = min(1.0, MAX_TRIALS / trials)
    return np.asarray((scale * successes) * np.log(solved) + (scale * (trials - successes)) * np.log(1.0 - solved))


def rate_for(target: float, slope_mass: Floats, guess_mass: float) -> float:
    """The rate at which the mean accuracy of a weighted mixture of curves is `target`, clamped to [0, 1].

    `slope_mass` of shape (k, threshold) is weight * (1 - b) summed over b, `guess_mass` the total of weight * b. The
    mean never decreases with the rate, so it is inverted by interpolation.
    """
    # vecdot, not @: a matrix product would start BLAS's threads for 90,000 multiplications.
    mean = 0.5 * LAPSE + (1.0 - LAPSE) * (guess_mass + np.vecdot(_SLOPES, slope_mass.ravel()))
    return float(np.interp(target, mean, RATES))


def band(curves: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean accuracy and the quantiles `BAND` of a posterior over the grid's curves, each of shape (rates,)."""
    weights = curves.ravel() / curves.sum()
    likely = weights > 1e-6
    weights = weights[likely] / weights[likely].sum()
    found = np.empty((3, len(RATES)))
    for index, rate in enumerate(RATES):
        accuracies = accuracy(rate).ravel()[likely]
        order = np.argsort(accuracies)
        found[0, index] = weights @ accuracies
        found[1:, index] = accuracies[order][np.searchsorted(np.cumsum(weights[order]), BAND)]
    mean, low, high = found
    return mean, low, high
