"""One rollout server as the pool sees it: whether it can be used, what it serves, and how it is brought up to date."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.canary import prove
from seele_trainer.rollout.protocol import Canary, Completion, Sampling
from seele_trainer.rollout.vllm_client import ServerError, ServerUnreachable, VllmServer

logger = logging.getLogger(__name__)

_WARM_UP = Sampling(n=2, max_tokens=2, temperature=1.0, seed=0)
_LOST_SECONDS = 20.0
"""Silence after which a server is taken for lost with its machine: its connections then hang instead of breaking."""


class ServerRestarted(ServerError):
    """The server came back as another process, with its initial weights."""


@dataclass(frozen=True)
class WeightsPush:
    """The weights that every server must serve; `label` is unique to this push of them."""

    directory: Path
    version: int
    canary: Canary
    label: str


class ManagedServer:
    """A server of the pool. `ready` means: it answers, and it serves the policy that was adopted last."""

    def __init__(self, server: VllmServer, config: RolloutOptions, before_push: Callable[[], None]) -> None:
        self.state: Literal["starting", "ready", "updating", "down", "retired"] = "starting"
        self.outstanding = 0
        self.last_asked = 0
        """Number of the pool's request that went here last."""
        self.error = "it has not answered yet"
        self.canary_difference = 0.0
        self.policy: WeightsPush | None = None
        self.left = asyncio.Event()
        """Set while the server is not in use, so that whoever watches it looks at once."""
        self._server = server
        self._config = config
        self._before_push = before_push
        self._label = ""
        self._proven_connections = 0
        self._answered = time.monotonic()
        self._requests: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._adopting = asyncio.Lock()
        self._confirming = asyncio.Lock()

    @property
    def url(self) -> str:
        """Address of the server."""
        return self._server.url

    def mark_down(self, error: Exception) -> None:
        """Stop using the server until it has been joined again."""
        if self.state == "retired":
            return
        if self.state != "starting":
            if self.state != "down":
                logger.warning("rollout server %s is out of use: %s", self.url, error)
            self.state = "down"
        self.error = str(error)
        self.left.set()

    def mark_ready(self) -> None:
        """Start using the server."""
        if self.state == "retired":
            return
        if self.state in ("starting", "down"):
            version = self.policy.version if self.policy else 0
            logger.info("rollout server %s is ready with policy version %d", self.url, version)
        self.state = "ready"
        self.left.clear()

    def retire(self) -> None:
        """Never use the server again; its requests in flight go on."""
        self.state = "retired"
        self.left.set()

    async def drain(self) -> None:
        """Wait for the requests in flight, and give up those that take longer than a weight sync would wait for them."""
        try:
            async with asyncio.timeout(self._config.sync_timeout_seconds):
                await self._idle.wait()
        except TimeoutError:
            self._give_up_requests()
            await self._idle.wait()

    async def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for each prompt; every completion carries the version that was served when it was asked for.

        Raises ServerError where the server failed, or turned out to be another process than the one that was updated.
        """
        version = self.policy.version if self.policy else 0
        request = asyncio.timeout(None)
        self.outstanding += 1
        self._idle.clear()
        try:
            async with request:
                self._requests.add(request)
                sampled = await self._server.complete(prompts, sampling, self._config.request_timeout_seconds)
                await self._confirm()
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} was lost with this request") from error
        finally:
            self._requests.discard(request)
            self.outstanding -= 1
            if not self.outstanding:
                self._idle.set()
        return [
            [Completion(one.tokens, one.logprobs, one.finish_reason, version) for one in group] for group in sampled
        ]

    async def check(self) -> None:
        """Raises ServerError unless the server still is the process that was updated, and well."""
        async with self._adopting:
            await self._check()

    async def _check(self) -> None:
        await self._server.health()
        self._answered = time.monotonic()
        label = await self._server.weight_label()
        if label != self._label:
            raise ServerRestarted(f"{self.url} serves weights {label!r} instead of {self._label!r}: it was restarted")

    async def join(self, policy: WeightsPush | None) -> None:
        """Bring a server that just came up to the current policy, and let it run once: the first request takes seconds.

        Raises ServerError where it is not up yet, WeightSyncError where it does not serve what it was given.
        """
        try:
            await self._server.health()
        except ServerUnreachable:
            if time.monotonic() - self._answered > _LOST_SECONDS:
                self._give_up_requests()
            raise
        self._answered = time.monotonic()
        await self.adopt(policy)
        await self._server.complete([[0]], _WARM_UP, self._config.request_timeout_seconds)

    async def adopt(self, policy: WeightsPush | None) -> None:
        """Make the server serve a policy and prove that it does; None takes it as it is.

        Raises ServerError where the server fails, WeightSyncError where it answers and the canary shows other weights.
        """
        async with self._adopting:
            # Before asking for the label: connections opened from here on may lead to yet another process.
            connections = self._server.connections
            label = await self._server.weight_label()
            if label != self._label:
                # Another process than the one that was asked: no answer to what that one was asked will ever come.
                self._give_up_requests()
            if policy is not None and label != policy.label:
                await self._reload(policy)
                label = policy.label
            self._label, self.policy, self._proven_connections = label, policy, connections

    async def _reload(self, policy: WeightsPush) -> None:
        limit = self._config.sync_timeout_seconds
        try:
            # A request that came after the pause would be answered with the new weights, and counted as old.
            async with asyncio.timeout(limit):
                await self._idle.wait()
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not finish its requests within {limit:g} s") from error
        self._before_push()
        await self._server.load_weights(policy.directory, limit)
        measured = await self._server.score(policy.canary.sequences, limit)
        self.canary_difference = prove(policy.canary, measured, self.url, policy.version)
        await self._server.label_weights(policy.label)

    async def _confirm(self) -> None:
        """Check the label if any connection was opened since the last time: only a restart needs a new one.

        This finds a restart that was too quick for any probe to see, at no cost while connections are kept.
        """
        async with self._confirming:
            connections = self._server.connections
            if connections != self._proven_connections:
                await self._check()
                self._proven_connections = connections

    def _give_up_requests(self) -> None:
        """Fail the requests in flight, so that they are asked elsewhere."""
        for request in self._requests:
            if request.when() is None:
                request.reschedule(asyncio.get_running_loop().time())
