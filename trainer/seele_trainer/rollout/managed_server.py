"""One rollout server of the pool: its state, the weights it serves, and how it is updated."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.canary import Followed, Scores
from seele_trainer.rollout.protocol import Canary, Completion, Sampling
from seele_trainer.rollout.vllm_client import ServerError, ServerUnreachable, VllmServer
from seele_trainer.rollout.weight_proof import WeightProof

logger = logging.getLogger(__name__)

_WARM_UP = Sampling(n=2, max_tokens=2, temperature=1.0, seed=0)
_LOST_SECONDS = 20.0
"""Silence after which a server counts as lost with its machine, where connections hang instead of breaking."""


class ServerRestarted(ServerError):
    """The server was restarted and serves its initial weights."""


@dataclass(frozen=True)
class WeightsPush:
    """The weights that every server must serve; `label` is unique to this push."""

    directory: Path
    version: int
    canary: Canary
    label: str


class ManagedServer:
    """A server of the pool. It is `ready` if it answers and serves the weights of the last `push`."""

    def __init__(self, server: VllmServer, config: RolloutOptions, before_push: Callable[[], None]) -> None:
        self.state: Literal["starting", "ready", "updating", "down", "retired"] = "starting"
        self.last_request = 0
        """Number of the last of the pool's requests that was sent here."""
        self.error = "it has not answered yet"
        self.canary_difference = 0.0
        self.unproven = False
        """Whether the canary left open if the server serves the weights of the last push or those before."""
        self.push: WeightsPush | None = None
        self.unused = asyncio.Event()
        """Set while the server is not in use, so that its watcher checks it at once."""
        self._server = server
        self._config = config
        self._before_push = before_push
        self._label = ""
        self._proof = WeightProof(server.url)
        self._proven_connections = 0
        self._answered = time.monotonic()
        self._requests: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._updating = asyncio.Lock()
        self._confirming = asyncio.Lock()

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._server.url

    @property
    def outstanding(self) -> int:
        """Number of requests in flight."""
        return len(self._requests)

    def mark_down(self, error: Exception) -> None:
        """Stop using the server until it has been brought up again."""
        if self.state == "retired":
            return
        if self.state != "starting":
            if self.state != "down":
                logger.warning("rollout server %s is not used: %s", self.url, error)
            self.state = "down"
        self.error = str(error)
        self.unused.set()

    def mark_ready(self) -> None:
        """Start using the server."""
        if self.state == "retired":
            return
        if self.state in ("starting", "down"):
            version = self.push.version if self.push else 0
            logger.info("rollout server %s is ready with policy version %d", self.url, version)
        self.state = "ready"
        self.unused.clear()

    def retire(self) -> None:
        """Never use the server again; requests in flight continue."""
        self.state = "retired"
        self.unused.set()

    async def drain(self) -> None:
        """Wait for the requests in flight, at most for the time limit of a weight sync, then abandon them."""
        try:
            async with asyncio.timeout(self._config.sync_timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._abandon_requests()
            await self._idle.wait()

    async def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for each prompt; every completion has the policy version served at the time of the request.

        Raises ServerError if the server failed or was restarted since its last update.
        """
        version = self.push.version if self.push else 0
        request = asyncio.timeout(None)
        self._requests.add(request)
        self._idle.clear()
        try:
            async with request:
                limit = self._config.request_timeout_seconds
                completions = await self._server.complete(prompts, sampling, limit, version)
                await self._confirm()
                return completions
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} was lost with this request") from error
        finally:
            self._requests.discard(request)
            if not self._requests:
                self._idle.set()

    async def check(self) -> None:
        """Raises ServerError unless the server is healthy and still the process that was updated."""
        async with self._updating:
            await self._check()

    async def _check(self) -> None:
        await self._server.health()
        self._answered = time.monotonic()
        label = await self._server.weight_label()
        if label != self._label:
            raise ServerRestarted(f"{self.url} serves weights {label!r} instead of {self._label!r}: it was restarted")

    async def bring_up(self, push: WeightsPush | None) -> None:
        """Give a server that has just started the current weights, and warm it up: its first request takes seconds.

        Raises ServerError if it is not up yet, WeightSyncError if it does not serve the weights it was given.
        """
        try:
            await self._server.health()
        except ServerUnreachable:
            if time.monotonic() - self._answered > _LOST_SECONDS:
                self._abandon_requests()
            raise
        self._answered = time.monotonic()
        await self.serve(push)
        await self._server.complete([[0]], _WARM_UP, self._config.request_timeout_seconds)

    async def serve(self, push: WeightsPush | None) -> None:
        """Make the server serve the weights of a push, and verify that it does; None accepts what it serves.

        Raises ServerError if the server fails, WeightSyncError if the canary shows other weights.
        """
        async with self._updating:
            # Count before reading the label: connections opened from here on may lead to a restarted server.
            connections = self._server.connections
            label = await self._server.weight_label()
            if label != self._label:
                # The server was restarted: requests to its predecessor will never be answered.
                self._abandon_requests()
                self._proof.forget()
            if push is not None and label != push.label:
                await self._reload(push)
                label = push.label
            self._label, self.push, self._proven_connections = label, push, connections

    async def _reload(self, push: WeightsPush) -> None:
        limit = self._config.sync_timeout_seconds
        try:
            # A request that arrived after the pause would be answered by the new weights but count as the old version.
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not finish its requests within {limit:g} s") from error

        async def load(folder: Path) -> Scores:
            self._before_push()
            await self._server.load_weights(folder, limit)
            return await self._server.score(push.canary.sequences, limit)

        proof = await self._proof.push(load, push.directory, push.version, push.canary)
        self.canary_difference = proof.difference
        self.unproven = proof.followed is Followed.UNPROVEN
        await self._server.label_weights(push.label)

    async def _confirm(self) -> None:
        """Check the label if a connection was opened since the last check, which every restart requires.

        This detects a restart too quick for any probe, at no cost while connections are kept open.
        """
        async with self._confirming:
            connections = self._server.connections
            if connections != self._proven_connections:
                await self._check()
                self._proven_connections = connections

    def _abandon_requests(self) -> None:
        """Fail the requests in flight, so that they are retried elsewhere."""
        for request in self._requests:
            if request.when() is None:
                request.reschedule(asyncio.get_running_loop().time())
