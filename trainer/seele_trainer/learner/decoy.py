"""The decoy: weights that no policy has, to prove that an engine loads what it is given."""

from __future__ import annotations

from pathlib import Path

from seele_trainer.learner.thread import LearnerThread
from seele_trainer.rollout.canary import MIN_DECOY_DISTANCE, mean_difference
from seele_trainer.rollout.protocol import Canary, Decoy, WeightSyncError

HEAD_SCALES = (0.5, -1.0, -4.0, -16.0)
"""Scales of the output head to try, exact in every dtype: halved logits are the least noisy, but a model that is certain, or
knows nothing, needs more."""


async def make_decoy(learner: LearnerThread, canary: Canary, directory: Path, *, untie: bool) -> Decoy:
    """Export the policy with its output head scaled, into `directory`. The learner's own weights stay as they are.

    Raises WeightSyncError if no scale changes the canary enough for its tolerance.
    """
    enough = MIN_DECOY_DISTANCE * canary.tolerance
    distance = 0.0
    for scale in HEAD_SCALES:
        logprobs = tuple(tuple(map(float, row)) for row in await learner.decoy_logprobs(canary.sequences, scale))
        distance = mean_difference(canary.logprobs, logprobs)
        if distance >= enough:
            await learner.export(directory, untie=untie, head_scale=scale)
            return Decoy(directory.absolute(), logprobs)
    raise WeightSyncError(
        f"a weight sync cannot be proven: with its output head multiplied by {HEAD_SCALES[-1]:g}, the model's "
        f"log-probabilities of the canary change by {distance:.3g} nats per token, and {enough:.3g} is needed. Lower "
        f"rollout.canaryTolerance, which is {canary.tolerance:.3g} here"
    )
