"""What a step's updates gained on each of its problems, to hold against a(1-a) (arXiv 2509.06923, Eq. 5).

The paper bounds how far one step can lower the loss on a problem by a quantity proportional to a(1-a), a being the accuracy
of its rollouts. Measured is the surrogate of the policy gradient: the change of the rollouts' log-probabilities, weighed by
their advantages. A group of equal rewards has no advantages, hence no descent, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from seele_trainer.records import Descent
from seele_trainer.strategies.advantages import policy_sample, rewards, with_advantages
from seele_trainer.strategies.base import FloatArray, Rollout, Sample

MOST_GROUPS = 64
"""Bounds what the two forward passes cost, and the line of metrics.jsonl, where a step has hundreds of problems."""


@dataclass(frozen=True)
class Probed:
    """A baseline group whose rollouts are scored before and after a step's updates."""

    accuracy: float
    samples: tuple[Sample, ...]


def probe(groups: Iterable[Sequence[Rollout]]) -> list[Probed]:
    """The groups that have advantages, the first `MOST_GROUPS` of them."""
    found: list[Probed] = []
    for group in groups:
        accuracy = float(rewards(group).mean())
        if len(found) < MOST_GROUPS and 0.0 < accuracy < 1.0:
            found.append(Probed(accuracy, tuple(policy_sample(*pair) for pair in with_advantages([group]))))
    return found


def sequences(probed: Sequence[Probed]) -> list[list[int]]:
    """What is to be scored: the tokens of every rollout, group after group."""
    return [sample.tokens.tolist() for group in probed for sample in group.samples]


def descents(
    probed: Sequence[Probed], before: Sequence[FloatArray], after: Sequence[FloatArray]
) -> tuple[Descent, ...]:
    """Descent of every group, from the log-probabilities of `sequences` before and after the updates.

    Array i of either has one element less than sequence i: element t belongs to token t + 1.
    """
    pairs = iter(zip(before, after, strict=True))
    return tuple(
        Descent(
            accuracy=group.accuracy,
            descent=float(np.mean([_gain(sample, *next(pairs)) for sample in group.samples])),
        )
        for group in probed
    )


def _gain(sample: Sample, before: FloatArray, after: FloatArray) -> float:
    # In double precision: the differences are small beside what they are differences of.
    return float(sample.advantage[1:].astype(np.float64) @ (after.astype(np.float64) - before.astype(np.float64)))
