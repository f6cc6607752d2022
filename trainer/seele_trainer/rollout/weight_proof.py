"""Loading weights into one engine, and proving that it serves them."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from seele_trainer.rollout.canary import Followed, Scores, Served, follows, mean_difference, prove
from seele_trainer.rollout.protocol import Canary, Decoy, WeightSyncError

logger = logging.getLogger(__name__)

Load = Callable[[Path], Awaitable[Scores]]
"""Makes the engine load a model folder; the result is what it scores the canary with."""

MAX_UNPROVEN = 8
"""Syncs in a row that may leave open which version is served, before the decoy is shown again."""


@dataclass(frozen=True)
class Proof:
    """What the canary shows after a sync; `difference` is the mean absolute one in nats per token."""

    difference: float
    followed: Followed


class WeightProof:
    """The proof that one engine, called `name`, serves the weights that it is given.

    An engine of which nothing is known gets the decoy first, and then the weights: it must change by far more than the
    tolerance twice. Every later sync must show that the engine follows the new version rather than the one before. Where
    they differ too little, the sync is unproven, and after `MAX_UNPROVEN` of these in a row the decoy comes first again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._served: Served | None = None
        self._unproven = 0

    def forget(self) -> None:
        """Assume nothing about the weights that the engine serves now, such as after its restart."""
        self._served = None

    async def push(self, load: Load, directory: Path, version: int, canary: Canary) -> Proof:
        """Load a version and prove it. Raises WeightSyncError if the engine serves others, and whatever `load` raises."""
        before, self._served = self._served, None
        if canary.decoy is not None and (before is None or self._unproven >= MAX_UNPROVEN):
            before = await self._show(load, canary.decoy, canary.tolerance)
        served = Served(canary.logprobs, await load(directory))
        difference = prove(canary, served.measured, self._name, version)
        followed = Followed.UNPROVEN if before is None else follows(before, served)
        if followed is Followed.OLD:
            raise WeightSyncError(
                f"{self._name} was given the weights of version {version} and still serves the previous ones: its "
                "log-probabilities of the canary have not followed the trainer's. It answers that it has loaded weights "
                "without loading them: look at its log, and use a version of vLLM that docs/upgrading.md lists"
            )
        if followed is Followed.UNPROVEN:
            self._unproven += 1
            logger.debug("%s: version %d differs too little from the one before to be proven", self._name, version)
        elif followed is Followed.NEW:
            self._unproven = 0
        self._served = served
        return Proof(difference, followed)

    async def _show(self, load: Load, decoy: Decoy, tolerance: float) -> Served:
        measured = await load(decoy.directory)
        found = mean_difference(decoy.logprobs, measured)
        if not found <= tolerance:
            raise WeightSyncError(
                f"{self._name} does not serve the weights that it is given: after it was given weights very different from "
                f"the policy's, to prove that it loads any at all, its log-probabilities of the canary are off by "
                f"{found:.3g} nats per token, and {tolerance:.3g} is allowed. Look at its log. A model with tied embeddings "
                "must be served untied (rollout.untieEmbeddings: true); if dtypes or kernels differ, raise "
                "rollout.canaryTolerance"
            )
        return Served(decoy.logprobs, measured)
