"""Shared by tests of the pool of rollout servers."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.protocol import Canary, Decoy, Sampling

CONFIG = RolloutOptions(
    request_timeout_seconds=5,
    server_start_timeout_seconds=5,
    server_retry_timeout_seconds=5,
    sync_timeout_seconds=5,
)
SAMPLING = Sampling(n=4, max_tokens=8, temperature=1.0, seed=7)
SEQUENCES = ((1, 2, 3, 4, 5), (4, 5, 6, 7, 8, 9, 10))


def folder_with(number: float, parent: Path) -> Path:
    """A model folder for FakeVllm."""
    folder = parent / f"number-{number}"
    folder.mkdir(exist_ok=True)
    (folder / "number").write_text(str(number))
    return folder


def canary_of(number: float, decoy: Decoy | None = None) -> Canary:
    """The answers of a correct server that serves this number."""
    return Canary(SEQUENCES, _scores(number), tolerance=0.01, decoy=decoy)


def decoy_of(number: float, parent: Path) -> Decoy:
    """A folder with this number as a decoy."""
    return Decoy(folder_with(number, parent), _scores(number))


def _scores(number: float) -> tuple[tuple[float, ...], ...]:
    return tuple((-float(number),) * (len(tokens) - 1) for tokens in SEQUENCES)


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting for {what}"
        await asyncio.sleep(0.01)
