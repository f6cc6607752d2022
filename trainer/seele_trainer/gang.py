"""One driver, many learners: rank 0 runs the loop and every rank runs the same learner calls in the same order.

The driver announces each call to the other ranks, which wait for it in `follow`. Announcements travel over a gloo group of
their own with a long time limit, because between two calls lies a whole phase of rollouts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch.distributed as dist

from seele_trainer.learner import Learner, UpdateStats
from seele_trainer.strategies.base import Sample

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

ANNOUNCEMENT_TIMEOUT = timedelta(days=7)
STOP = "stop"


class Announcements:
    """Calls that rank 0 makes known to all ranks: a method's name and its small arguments."""

    def __init__(self) -> None:
        alone = not dist.is_initialized() or dist.get_world_size() == 1
        self._group = None if alone else dist.new_group(backend="gloo", timeout=ANNOUNCEMENT_TIMEOUT)

    def send(self, name: str, *arguments: Any) -> None:
        """Tell the other ranks what is called next."""
        if self._group is not None:
            dist.broadcast_object_list([(name, arguments)], src=0, group=self._group)

    def receive(self) -> tuple[str, tuple[Any, ...]]:
        """Wait for the driver's next call. Raises RuntimeError when the driver is gone."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0, group=self._group)
        name, arguments = box[0]
        return name, arguments


class Gang:
    """The driver's view of all learners. Methods are coroutines; the work runs in one thread beside the event loop."""

    def __init__(self, build: Callable[[], Learner]) -> None:
        self._build = build
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="learner")
        self._learner: Learner | None = None
        self._announcements: Announcements | None = None

    async def start(self) -> None:
        """Build the learner, in the thread that all its calls run in (the current CUDA device is a thread's own)."""

        def start() -> None:
            self._learner = self._build()
            self._announcements = Announcements()

        await self._run(start)

    async def update(self, samples: Sequence[Sample]) -> UpdateStats:
        """One optimizer update on these samples."""
        return await self._call("update", samples, announce=(None,))

    async def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Log-probabilities of sequences under the current policy, each one shorter than its sequence."""
        return await self._call("logprobs", [tuple(sequence) for sequence in sequences])

    async def export(self, directory: Path) -> None:
        """Write the current policy as a Hugging Face model folder."""
        await self._call("export", directory)

    async def save(self, directory: Path) -> None:
        """Write every rank's part of a checkpoint."""
        await self._call("save", directory)

    async def load(self, directory: Path) -> None:
        """Restore every rank from its part of a checkpoint."""
        await self._call("load", directory)

    async def close(self) -> None:
        """Let the other ranks go."""
        if self._announcements is not None:
            await self._run(lambda: self._announcements and self._announcements.send(STOP))
        self._thread.shutdown()

    async def _call(self, name: str, argument: Any, announce: tuple[Any, ...] | None = None) -> Any:
        def call() -> Any:
            if self._learner is None or self._announcements is None:
                raise RuntimeError("the gang was not started")
            self._announcements.send(name, *((argument,) if announce is None else announce))
            return getattr(self._learner, name)(argument)

        return await self._run(call)

    async def _run(self, work: Callable[[], Result]) -> Result:
        # A learner call cannot be interrupted half-way on one rank: when the caller is cancelled, finish it first.
        future = asyncio.get_running_loop().run_in_executor(self._thread, work)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


def follow(learner: Learner) -> None:
    """What every rank but 0 does: the driver's calls, until it says stop."""
    announcements = Announcements()
    while True:
        name, arguments = announcements.receive()
        if name == STOP:
            return
        getattr(learner, name)(*arguments)
