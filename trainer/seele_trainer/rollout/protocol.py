"""The interface of engines that sample completions.

Two engines implement it: `rollout.pool.VllmPool` drives stock vLLM servers over HTTP, and
`rollout.transformers_engine.TransformersEngine` samples inside the trainer for tests and debugging. Both take token ids
and return token ids with the log-probabilities they were sampled with, so nothing is tokenised twice.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from seele_trainer.termination import ExpectedFailure


class RolloutUnavailable(ExpectedFailure):
    """No rollout engine can answer, even after waiting and retries. The message says where to look."""


class WeightSyncError(ExpectedFailure):
    """New weights did not reach an engine, or the canary shows that it serves other weights."""


@dataclass(frozen=True)
class Sampling:
    """How to continue a prefix: `n` completions of at most `max_tokens` tokens; temperature 0 is greedy."""

    n: int
    max_tokens: int
    temperature: float
    seed: int


@dataclass(frozen=True)
class Completion:
    """One sampled continuation.

    `tokens` and `logprobs` have the same length: generated tokens, including the one that ended it if one did, and
    the natural log-probability of each under the distribution it was sampled from (temperature applied).
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]
    policy_version: int


@dataclass(frozen=True)
class Decoy:
    """A model folder whose log-probabilities of the canary differ from the policy's by far more than the tolerance.

    An engine that shows them loads what it is given. `logprobs` are the trainer's own, as in `Canary`.
    """

    directory: Path
    logprobs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Canary:
    """The check of a weight sync: token ids of a few sequences and the trainer's own log-probabilities of them.

    `logprobs[i][t]` belongs to `sequences[i][t + 1]`, so each is one shorter than its sequence. `tolerance` bounds the
    mean absolute difference over all tokens. Without a decoy, the first sync of an engine is unproven.
    """

    sequences: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    tolerance: float
    decoy: Decoy | None = None


@dataclass(frozen=True)
class WeightSync:
    """Result of a weight sync: seconds on the slowest engine, and the canary's mean absolute difference.

    `unproven` is the number of engines whose log-probabilities do not show whether they serve this version or the one
    before, because the two differ by less than the noise.
    """

    version: int
    seconds: float
    canary_difference: float
    engines: int
    unproven: int = 0


ServerState = Literal["starting", "ready", "down"]


@dataclass(frozen=True)
class RolloutServer:
    """State of a rollout server: `starting` until it is first used, then `ready` or `down`."""

    url: str
    state: ServerState


@dataclass
class RequestCounts:
    """Requests since the engine started, by outcome; `retried` ones were answered after a retry."""

    ok: int = 0
    retried: int = 0
    failed: int = 0
    by_server: dict[str, int] = field(default_factory=dict)


class RolloutEngine(Protocol):
    """Samples completions from the current policy. All methods run on one asyncio loop."""

    counts: RequestCounts

    async def start(self) -> None:
        """Wait until at least one server can be used. Raises RolloutUnavailable after the start time limit."""

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        """Load the Hugging Face model folder `directory` as policy `version` everywhere, and verify it with the canary.

        Raises WeightSyncError if a server serves wrong weights, RolloutUnavailable if no server is left.
        """

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Sample `sampling.n` completions of one prefix. Raises RolloutUnavailable if no server is left."""

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for many prefixes with few round trips; the result is in the order of `prefixes`."""

    def servers(self) -> Sequence[RolloutServer]:
        """The servers that are listed now, in the order of the list; none if the trainer samples in its own process.

        This is the only method that other threads may call.
        """

    async def close(self) -> None:
        """Release connections and memory."""


def derive_seed(seed: int, step: int, name: str, number: int) -> int:
    """A seed in [0, 2**31) that depends on the arguments alone."""
    digest = hashlib.blake2b(f"{seed}/{step}/{name}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


_MASK = 2**64 - 1


def spread(seed: int, index: int = 0) -> int:
    """A seed of 62 bits for part `index` of whatever `seed` is for, far from the seeds of all other pairs.

    SplitMix64's finaliser (Steele et al. 2014), applied to the seed and then to the index.
    """
    return _mixed(_mixed(seed) + index) >> 2


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
