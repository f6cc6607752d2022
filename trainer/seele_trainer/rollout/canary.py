"""The canary: a few sequences whose log-probabilities verify that an engine serves the trainer's weights.

A reload that answers 200 verifies nothing: vLLM on a CPU does so for a tied model and then serves neither the old
weights nor the new ones. It is then off by more than 1 nat per token; a correct reload by about 1e-4 in float32.

An engine that keeps the old weights is off by less: one step changes the log-probabilities by far less than half
precision rounds them. `follows` therefore asks which version the engine follows from token to token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

import numpy as np
from numpy.typing import NDArray

from seele_trainer.rollout.protocol import Canary, WeightSyncError

_FULL_PRECISION_TOLERANCE = 1e-2
_HALF_PRECISION_TOLERANCE = 0.15

MIN_DECOY_DISTANCE = 4.0
"""Least mean difference between policy and decoy, in tolerances: what passes as one of them is far from the other."""

_SIGMAS = 6.0
"""Standard errors that a slope must be away from a limit: a wrong verdict must not end a run of thousands of syncs."""
_FEWEST_TOKENS = 8
"""Fewest tokens that say anything about the noise."""
_ENOUGH_CHANGED = 48
"""Tokens of which the trainer's values change while an engine that follows cannot keep all of its own, or half of all."""

Scores = Sequence[Sequence[float]]
"""Log-probabilities of the canary: `scores[i][t]` belongs to token t + 1 of sequence i."""


class Followed(Enum):
    """Which weights an engine follows after a push."""

    NEW = "new"
    OLD = "old"
    UNPROVEN = "unproven"
    """The versions differ by less than the noise between engine and trainer."""
    SAME = "same"
    """The versions do not differ."""


@dataclass(frozen=True)
class Served:
    """Log-probabilities of the canary under the weights that an engine serves: the trainer's and the engine's own."""

    expected: Scores
    measured: Scores


def default_tolerance(dtype: str) -> float:
    """Largest mean difference, in nats, that rounding alone explains for weights of this type."""
    return _FULL_PRECISION_TOLERANCE if dtype == "float32" else _HALF_PRECISION_TOLERANCE


def canary_sequences(token_lists: Sequence[Sequence[int]], count: int, max_tokens: int) -> tuple[tuple[int, ...], ...]:
    """Choose up to `count` different sequences, evenly from the given ones, each cut to `max_tokens` tokens.

    Raises ValueError if none has two tokens, the fewest with which one can be scored.
    """
    if count < 1 or max_tokens < 2:
        raise ValueError(f"a canary needs at least one sequence of two tokens, not {count} sequences of {max_tokens}")
    usable = list(dict.fromkeys(tuple(tokens[:max_tokens]) for tokens in token_lists if len(tokens) >= 2))
    if not usable:
        raise ValueError("no sequence for the canary has two or more tokens: the data set seems to be empty")
    count = min(count, len(usable))
    return tuple(usable[index * len(usable) // count] for index in range(count))


def difference(canary: Canary, measured: Scores) -> float:
    """Mean absolute difference in nats over all tokens; infinite if a value is missing or not finite.

    `measured[i][t]` belongs to `canary.sequences[i][t + 1]`.
    """
    return mean_difference(canary.logprobs, measured)


def mean_difference(one: Scores, other: Scores) -> float:
    """Mean absolute difference in nats over all tokens; infinite if a value is missing or not finite."""
    if [len(row) for row in one] != [len(row) for row in other]:
        return math.inf
    differences = _flat(one) - _flat(other)
    return float(np.abs(differences).mean()) if np.isfinite(differences).all() else math.inf


def prove(canary: Canary, measured: Scores, engine: str, version: int) -> float:
    """The difference. Raises WeightSyncError, naming the engine, if it exceeds the tolerance."""
    found = difference(canary, measured)
    if not found <= canary.tolerance:
        raise WeightSyncError(
            f"{engine} was given the weights of version {version} but serves others: its log-probabilities of the "
            f"canary are off by {found:.3g} nats per token, and {canary.tolerance:.3g} is allowed. A model with tied "
            "embeddings must be served untied (rollout.untieEmbeddings: true); if dtypes or kernels differ, raise "
            "rollout.canaryTolerance"
        )
    return found


def follows(before: Served, after: Served) -> Followed:
    """Which of two versions an engine follows that was given the weights of `after` while it served `before`.

    A slope of what the engine shows on what the trainer's values changed by is 1 for the new version and 0 for the old
    one, but rounding blurs both ends. Rounding that changes with the weights draws the slope of the engine's own change
    to 0, so that slope can prove the new version, not the old one. From the trainer's old values the slope is drawn to
    1/2, never beyond; but rounding that stays, and resembles the change, may shift it. The old version is followed if
    both are clearly below 1/2, or if the engine's values have not changed at all.
    """
    old = _flat(before.expected)
    change = _flat(after.expected) - old
    if not change.any():
        return Followed.SAME
    if len(change) < _FEWEST_TOKENS:
        return Followed.UNPROVEN
    measured = _flat(after.measured)
    own_change = measured - _flat(before.measured)
    if not own_change.any() and _clearly_changed(change, _flat(before.measured) - old):
        return Followed.OLD
    own, from_old = Slope.of(change, own_change), Slope.of(change, measured - old)
    if own.below(0.5) and from_old.below(0.5):
        return Followed.OLD
    return Followed.NEW if own.above(0.0) else Followed.UNPROVEN


def _clearly_changed(change: NDArray[np.float64], noise: NDArray[np.float64]) -> bool:
    """Whether an engine that serves the new weights cannot give the same values as before.

    It can if few tokens change, or if they change by far less than it rounds them.
    """
    changed = change[change != 0]
    enough = min(len(change) / 2, _ENOUGH_CHANGED)
    return bool(len(changed) >= enough and np.sqrt(np.mean(changed**2)) >= noise.std() / 16)


@dataclass(frozen=True)
class Slope:
    """Slope of a line through the origin, and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, x: NDArray[np.float64], y: NDArray[np.float64]) -> Self:
        """Fit y = value * x, where x is not all zero.

        Rare tokens change a lot and are noisy: none has more weight than twice the typical change, and the error is HC3's,
        which needs no equal noise (MacKinnon and White, 1985, https://doi.org/10.1016/0304-4076(85)90158-7). It is
        enlarged for few tokens, whose noise is hardly known.
        """
        typical = np.median(np.abs(x))
        weight = np.clip(x, -2 * typical, 2 * typical) if typical > 0 else x
        total = float(weight @ x)
        value = float(weight @ y) / total
        left_out = (y - value * x) / np.maximum(1 - weight * x / total, 1e-9)
        error = float(np.linalg.norm(weight * left_out)) / total
        return cls(value, error * (1 + 20 / len(x)))

    def below(self, limit: float) -> bool:
        """Whether the slope is below a limit beyond doubt."""
        return self.value + _SIGMAS * self.error < limit

    def above(self, limit: float) -> bool:
        """Whether the slope is above a limit beyond doubt."""
        return self.value - _SIGMAS * self.error > limit


def _flat(scores: Scores) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(row, dtype=np.float64) for row in scores])
