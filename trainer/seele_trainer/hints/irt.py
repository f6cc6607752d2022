"""The three-parameter logistic (3PL) curve of item response theory, and two ways to fit it (arXiv 2509.06923).

A curve is the accuracy of rollouts after a hint of rate p. A longer hint never lowers it: k > 0.
"""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.float64]

MAX_DISCRIMINATION = 50.0
MIN_DISCRIMINATION = 0.5
MAX_GUESSING = 0.95
# Weak priors of `fit`. Eight rollouts per point hardly determine k, so log k is kept near log 10 within a factor of
# about three; b is small unless the data show otherwise.
LOG_DISCRIMINATION_MEAN, LOG_DISCRIMINATION_SD = math.log(10.0), 1.0
GUESSING_SCALE = 0.15
# A margin point counts as much as a round of the paper's eight rollouts.
MARGIN_TRIALS = 8.0
# The limit of single precision.
MAX_TRIALS = 1e5
# First grid of `fit` over (log k, threshold, b); each later grid spans SPAN standard deviations on both sides of the
# mean.
COARSE = (8, 25, 5)
FINE = (6, 6, 5)
REFINEMENTS = 4
SPAN = 2.5
THRESHOLD_RANGE = (-0.75, 1.75)
PROBLEMS_AT_ONCE = 128


def sigmoid(x: ArrayLike) -> Floats:
    """1 / (1 + exp(-x)), without overflow for any finite or infinite x."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(np.asarray(x, dtype=np.float64), -500.0, 500.0))))


@dataclass(frozen=True)
class Curve:
    """f(p) = b + (1 - b) / (1 + exp(-k (p + mu))) (Eq. 12). Fields are arrays of shape (problems,), or scalars.

    `discrimination` is k, `guessing` is b, and `ability` is mu: minus the threshold, at which f is halfway from b to 1.
    """

    discrimination: Floats
    ability: Floats
    guessing: Floats

    def accuracy(self, rate: ArrayLike) -> Floats:
        """Accuracy in [0, 1] at hint rates that broadcast against the fields."""
        with np.errstate(over="ignore"):
            slope = sigmoid(self.discrimination * (np.asarray(rate, dtype=np.float64) + self.ability))
        return np.asarray(self.guessing + (1.0 - self.guessing) * slope)

    def rate_for(self, target: ArrayLike) -> Floats:
        """The rate in [0, 1] at which the accuracy is `target`: f inverted and clamped.

        0 if b >= target or f(0) >= target, since no hint is needed; 1 if f(1) <= target.
        """
        wanted = np.asarray(target, dtype=np.float64)
        guessing = np.asarray(self.guessing, dtype=np.float64)
        with np.errstate(all="ignore"):
            share = (wanted - guessing) / (1.0 - guessing)
            inverse = (np.log(share) - np.log1p(-share)) / np.asarray(self.discrimination) - self.ability
        enough = (guessing >= wanted) | (self.accuracy(0.0) >= wanted)
        short = self.accuracy(1.0) <= wanted
        between = np.clip(np.nan_to_num(inverse, nan=1.0, posinf=1.0, neginf=0.0), 0.0, 1.0)
        return np.asarray(np.where(enough, 0.0, np.where(short, 1.0, between)))


def fit(rates: ArrayLike, accuracies: ArrayLike, trials: ArrayLike) -> Curve:
    """Fit a curve to each problem, independently: the posterior mean of (log k, threshold, b) under weak priors.

    No run uses it: it is a reference to compare estimators with, and for notebooks that fit the rounds of a finished
    run. Arrays have shape (problems, observations), or (observations,) for one problem; NaN or no trials marks missing
    ones. An observation is weighted by its `trials`, so equal rates average. Margin points (0, 0) and (1, 1) replace
    whichever of rate 0 and 1 was not measured. The posterior is summed over a coarse grid, then over finer ones around
    it. Never raises on values; a problem without data gets the prior's curve.
    """
    rates, accuracies, trials = _observations(rates, accuracies, trials)
    means = np.empty((len(rates), 3))
    for start in range(0, len(rates), PROBLEMS_AT_ONCE):
        chunk = slice(start, start + PROBLEMS_AT_ONCE)  # small enough for the cache
        means[chunk] = _posterior_mean(rates[chunk], accuracies[chunk], trials[chunk])
    return Curve(np.exp(means[:, 0]), -means[:, 1], means[:, 2])


def fit_paper(rates: ArrayLike, accuracies: ArrayLike, trials: ArrayLike) -> Curve:
    """Fit a curve to each problem by unweighted nonlinear least squares, as in the paper (Eq. 13). Shapes as in `fit`.

    Accuracies are averaged per distinct rate, margin points are added, and scipy's trust-region reflective solver runs
    with 0 < k <= 50 and 0 <= b < 1. `trials` only weights that average. Never raises on values.
    """
    from scipy.optimize import least_squares  # slow to import, and only this estimator needs it

    rates, accuracies, trials = _observations(rates, accuracies, trials)
    start = np.array([10.0, -0.5, 0.05])
    bounds = ([1e-3, -2.0, 0.0], [MAX_DISCRIMINATION, 2.0, MAX_GUESSING])
    curves = np.empty((len(rates), 3))
    for row, (rate, accuracy, weight) in enumerate(zip(rates, accuracies, trials, strict=True)):
        points, inverse = np.unique(rate[weight > 0], return_inverse=True)
        total = np.bincount(inverse, weight[weight > 0])
        means = np.bincount(inverse, (weight * accuracy)[weight > 0]) / total

        def residual(x: Floats, points: Floats = points, means: Floats = means) -> Floats:
            return np.asarray(x[2] + (1.0 - x[2]) * sigmoid(x[0] * (points + x[1])) - means)

        curves[row] = least_squares(residual, start, bounds=bounds, method="trf").x
    return Curve(curves[:, 0], curves[:, 1], curves[:, 2])


def _observations(rates: ArrayLike, accuracies: ArrayLike, trials: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Observations with the margin points appended: shape (problems, observations + 2), weight 0 if missing."""
    rate, accuracy, weight = np.broadcast_arrays(
        *(np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (rates, accuracies, trials))
    )
    valid = np.isfinite(rate) & np.isfinite(accuracy) & np.isfinite(weight) & (weight > 0)
    rate = np.clip(np.where(valid, rate, 0.0), 0.0, 1.0)
    accuracy = np.clip(np.where(valid, accuracy, 0.0), 0.0, 1.0)
    weight = np.where(valid, np.minimum(weight, MAX_TRIALS), 0.0)
    margin = np.broadcast_to(np.array([0.0, 1.0]), (len(rate), 2))
    measured = np.stack([(valid & (rate == end)).any(axis=1) for end in (0.0, 1.0)], axis=1)
    margin_weight = np.where(measured, 0.0, MARGIN_TRIALS)
    return np.hstack([rate, margin]), np.hstack([accuracy, margin]), np.hstack([weight, margin_weight])


def _posterior_mean(rates: Floats, accuracies: Floats, weights: Floats) -> Floats:
    """Posterior mean of (log k, threshold, b), shape (problems, 3)."""
    low = np.array([math.log(MIN_DISCRIMINATION), THRESHOLD_RANGE[0], 0.0])
    high = np.array([math.log(MAX_DISCRIMINATION), THRESHOLD_RANGE[1], MAX_GUESSING])
    left, right = np.tile(low, (len(rates), 1)), np.tile(high, (len(rates), 1))
    shape = COARSE
    for _ in range(REFINEMENTS + 1):
        axes = [
            left[:, d, None] + (right - left)[:, d, None] * np.linspace(0.0, 1.0, points)
            for d, points in enumerate(shape)
        ]  # each (problems, points)
        posterior = _posterior(axes, rates, accuracies, weights)
        marginals = [posterior.sum(axis=others) for others in ((2, 3), (1, 3), (1, 2))]
        mean = np.stack([np.vecdot(m, axis) for m, axis in zip(marginals, axes, strict=True)], axis=1)
        square = np.stack([np.vecdot(m, axis**2) for m, axis in zip(marginals, axes, strict=True)], axis=1)
        # A posterior narrower than the grid has a deviation of 0: never zoom in beyond the neighbouring points.
        spacing = (right - left) / (np.array(shape) - 1)
        reach = SPAN * np.maximum(np.sqrt(np.maximum(0.0, square - mean**2)), 0.6 * spacing)
        left, right = np.maximum(low, mean - reach), np.minimum(high, mean + reach)
        shape = FINE
    return mean


def _posterior(axes: list[Floats], rates: Floats, accuracies: Floats, weights: Floats) -> Floats:
    """Normalised posterior of shape (problems, k, threshold, b) for binomial outcomes, on each problem's grid."""
    # Single precision is four times as fast, and its rounding is finer than the grid.
    log_k, threshold, guessing = (axis.astype(np.float32) for axis in axes)
    k, threshold, guessing = np.exp(log_k)[:, :, None], threshold[:, None, :], guessing[:, None, None, :]
    by_round, right, wrong = (
        values.T.astype(np.float32) for values in (rates, accuracies * weights, (1.0 - accuracies) * weights)
    )
    prior_k = -0.5 * ((log_k - LOG_DISCRIMINATION_MEAN) / LOG_DISCRIMINATION_SD) ** 2
    # The part independent of b, of shape (problems, k, threshold); the probability of a failure factors.
    log_slopes = prior_k[:, :, None] + np.zeros_like(threshold)
    log_density = wrong.sum(axis=0)[:, None, None, None] * np.log1p(-guessing) - guessing / GUESSING_SCALE
    log_density = log_density + np.zeros_like(log_slopes)[..., None]
    for rate, successes, failures in zip(by_round, right, wrong, strict=True):
        odds_against = np.exp(np.clip(k * (threshold - rate[:, None, None]), -15.0, 15.0))
        slope = 1.0 / (1.0 + odds_against)
        if failures.any():
            log_slopes += failures[:, None, None] * np.log(odds_against * slope)  # log(1 - slope), precise near 1
        if successes.any():
            accuracy = slope[..., None] * (1.0 - guessing)
            accuracy += guessing
            np.log(accuracy, out=accuracy)
            accuracy *= successes[:, None, None, None]
            log_density += accuracy
    log_density += log_slopes[..., None]
    density = np.exp(log_density - log_density.max(axis=(1, 2, 3), keepdims=True))
    return np.asarray(density / density.sum(axis=(1, 2, 3), keepdims=True), dtype=np.float64)
