"""The driver's learner, in a thread beside the event loop."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from seele_trainer.learner.learner import SHARED_FAILURES, Learner, Stopping, UpdateStats, never
from seele_trainer.learner.sample import FloatArray, Sample
from seele_trainer.rollout.canary import MIN_DECOY_DISTANCE, mean_difference
from seele_trainer.rollout.protocol import Canary, Decoy, WeightSyncError

Result = TypeVar("Result")


class LearnerThread:
    """Learner's methods as coroutines, so that servers are watched and metrics are served while the learner computes.

    All calls run in the same thread, because CUDA's current device is set per thread.
    """

    def __init__(self, build: Callable[[], Learner]) -> None:
        self._build = build
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")
        self._learner: Learner | None = None
        self._failed = False

    @property
    def checkpoint_bytes(self) -> int:
        """About how much `save` writes, on all ranks together."""
        return self._started.checkpoint_bytes

    async def start(self) -> None:
        """Load the model and build the engine. This takes long, so rollout servers start at the same time."""

        def start() -> None:
            self._learner = self._build()

        await self._run(start)

    async def update(self, samples: Sequence[Sample], stopping: Stopping = never) -> UpdateStats:
        """One optimizer update on these samples. `stopping` is asked in the learner's thread; see `Learner.update`."""
        return await self._run(lambda: self._started.update(samples, stopping))

    async def logprobs(self, sequences: Sequence[Sequence[int]], stopping: Stopping = never) -> list[FloatArray]:
        """Log-probabilities of sequences under the current policy, each one shorter than its sequence."""
        return await self._run(lambda: self._started.logprobs(sequences, stopping))

    async def decoy_logprobs(self, sequences: Sequence[Sequence[int]], head_scale: float) -> list[FloatArray]:
        """Log-probabilities of sequences under the policy with its output head scaled."""
        return await self._run(lambda: self._started.decoy_logprobs(sequences, head_scale))

    async def export(self, directory: Path, *, untie: bool, head_scale: float = 1.0) -> None:
        """Write the current policy, with its output head scaled, as a Hugging Face model folder."""
        await self._run(lambda: self._started.export(directory, untie=untie, head_scale=head_scale))

    async def save(self, directory: Path) -> None:
        """Write every rank's part of a checkpoint."""
        await self._run(lambda: self._started.save(directory))

    async def load(self, directory: Path) -> None:
        """Restore every rank from its part of a checkpoint. Raises DamagedCheckpoint with nothing changed."""
        await self._run(lambda: self._started.load(directory))

    async def close(self) -> None:
        """Make the other ranks return from `follow`, and end the thread.

        After a failed call they may be waiting in the middle of it. They are not notified then: their wait ends when
        this process ends and its connections close.
        """
        if self._learner is not None and not self._failed:
            await self._run(self._learner.close)
        self._thread.shutdown()

    @property
    def _started(self) -> Learner:
        if self._learner is None:
            raise RuntimeError("the learner was not started")
        return self._learner

    async def _run(self, work: Callable[[], Result]) -> Result:
        # A collective call cannot be interrupted on one rank, so it is finished even if the caller is cancelled.
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise
        finally:
            if future.done() and not future.cancelled():
                failure = future.exception()
                self._failed |= failure is not None and not isinstance(failure, SHARED_FAILURES)


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
