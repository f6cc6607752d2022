"""The canary: a few sequences whose log-probabilities verify that a server serves the trainer's weights.

A reload that answers 200 verifies nothing: vLLM on a CPU does so for a tied model and then serves neither the old
weights nor the new ones. It is then off by more than 1 nat per token; a correct reload by about 1e-4 in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from seele_trainer.rollout.protocol import Canary, WeightSyncError

_FULL_PRECISION_TOLERANCE = 1e-2
_HALF_PRECISION_TOLERANCE = 0.15


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


def difference(canary: Canary, measured: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference in nats over all tokens; infinite if a value is missing or not finite.

    `measured[i][t]` belongs to `canary.sequences[i][t + 1]`.
    """
    if [len(row) for row in measured] != [len(row) for row in canary.logprobs]:
        return math.inf
    expected = np.concatenate([np.asarray(row, dtype=np.float64) for row in canary.logprobs])
    found = np.concatenate([np.asarray(row, dtype=np.float64) for row in measured])
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return math.inf
    return float(np.abs(expected - found).mean())


def prove(canary: Canary, measured: Sequence[Sequence[float]], engine: str, version: int) -> float:
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
