"""Completions from stock vLLM servers: load balancing, retries, and weights that are verified before use."""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import aiohttp
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.managed_server import ManagedServer, WeightsPush
from seele_trainer.rollout.protocol import (
    Canary,
    Completion,
    RequestCounts,
    RolloutServer,
    RolloutUnavailable,
    Sampling,
    ServerState,
    WeightSync,
    WeightSyncError,
    spread,
)
from seele_trainer.rollout.server_set import ServerSet, UrlFile
from seele_trainer.rollout.vllm_client import RequestRefused, ServerError, VllmServer, open_session

logger = logging.getLogger(__name__)

# A request that fails this often is likely to be what makes servers fail.
_ATTEMPTS = 6
_PREFIXES_PER_REQUEST = 32
_PROGRESS_SECONDS = 10.0
_STATES: dict[str, ServerState] = {"starting": "starting", "ready": "ready", "updating": "ready", "down": "down"}


class VllmPool:
    """The rollout servers of a run behind the RolloutEngine protocol; a server that fails is used again once healthy.

    A server is only used while it serves the last policy given to `update_weights`, as the canary verifies. After a
    restart, detected or not, it has its initial weights and is updated first. Before the first update the servers are
    used as they are, as version 0.

    The list of servers is `urls` at first, and then follows `url_file` if given. `before_push` is called before weights
    are pushed to a server; an error that it raises ends the run. While the pool starts, `waiting` is called every ten
    seconds with what it waits for. Servers end completions at the `stop` strings.
    """

    def __init__(
        self,
        urls: Sequence[str],
        config: RolloutOptions,
        model_name: str = "seele",
        *,
        url_file: Path | None = None,
        stop: Sequence[str] = (),
        before_push: Callable[[], None] = lambda: None,
        waiting: Callable[[str], None] = logger.info,
        probe_seconds: float = 2.0,
        list_seconds: float = 3.0,
    ) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        self.counts = RequestCounts(by_server=dict.fromkeys(self._urls, 0))
        self._config = config
        self._model_name = model_name
        self._listed = tuple(dict.fromkeys(self._urls))
        self._url_file = url_file
        self._stop = tuple(stop)
        self._list_seconds = list_seconds
        self._waiting = waiting
        self._token = uuid.uuid4().hex[:8]
        self._pushes = self._sent = 0
        self._session: aiohttp.ClientSession | None = None
        self._servers = ServerSet(config, self._connect, before_push, probe_seconds)
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Wait until at least one server can be used; the others follow when they are up.

        Raises RolloutUnavailable after the start time limit, RequestRefused if a server lacks the routes that training
        needs.
        """
        self._session = open_session()
        self._servers.follow(self._urls)
        if self._url_file is not None:
            self._following = asyncio.create_task(self._follow(UrlFile(self._url_file)))
        began, limit = time.monotonic(), self._config.server_start_timeout_seconds
        progress = asyncio.create_task(self._report_progress(began))
        try:
            await self._servers.until(self._any_ready, limit, f"no rollout server came up within {limit:g} s")
        finally:
            progress.cancel()
        ready, known = len(self._servers.ready), len(self._servers.listed)
        logger.info("%d of %d rollout servers ready after %.0f s", ready, known, time.monotonic() - began)

    async def close(self) -> None:
        """Stop watching the servers and close the connections to them."""
        if self._following is not None:
            self._following.cancel()
        await self._servers.close()
        if self._session is not None:
            await self._session.close()

    def servers(self) -> list[RolloutServer]:
        """The servers that are listed now, in the order of the list. Other threads may call this."""
        states = {server.url: _STATES.get(server.state) for server in tuple(self._servers.listed)}
        known = [(url, states.get(url)) for url in self._listed]
        return [RolloutServer(url, state) for url, state in known if state is not None]

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        """Load a model folder as policy `version` on every healthy server, and verify it with the canary.

        A server that fails meanwhile is updated when it is back. Raises WeightSyncError if a server answers and serves
        other weights, RolloutUnavailable if no server was updated in time.
        """
        began = time.monotonic()
        self._pushes += 1
        push = WeightsPush(directory.absolute(), version, canary, f"seele-{self._token}-{self._pushes}-v{version}")
        await self._servers.update(push)

        def updated() -> list[ManagedServer]:
            return [server for server in self._servers.ready if server.push is push]

        limit = self._config.server_retry_timeout_seconds
        await self._servers.until(
            lambda: bool(updated()), limit, f"no rollout server took the weights of version {version}"
        )
        servers = updated()
        return WeightSync(
            version=version,
            seconds=time.monotonic() - began,
            canary_difference=max(server.canary_difference for server in servers),
            engines=len(servers),
            unproven=sum(server.unproven for server in servers),
        )

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Sample `sampling.n` completions of one prefix; the same seed, prefix and weights give the same tokens.

        Raises RolloutUnavailable if no server is left or all attempts failed, RequestRefused for a request that vLLM
        rejects, such as a prefix that exceeds the model's context.
        """
        return (await self._request([prefix], sampling))[0]

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for many prefixes. Greedy ones share requests; sampled ones get a request and a seed each."""
        if sampling.temperature == 0:
            parts = [prefixes[at : at + _PREFIXES_PER_REQUEST] for at in range(0, len(prefixes), _PREFIXES_PER_REQUEST)]
            seeds = [sampling.seed] * len(parts)
        else:
            parts = [[prefix] for prefix in prefixes]
            seeds = [spread(sampling.seed, index) for index in range(len(parts))]
        limit = asyncio.Semaphore(self._config.max_concurrent_problems)

        async def request(part: Sequence[Sequence[int]], seed: int) -> list[list[Completion]]:
            async with limit:
                return await self._request(part, replace(sampling, seed=seed))

        answers = await asyncio.gather(*(request(part, seed) for part, seed in zip(parts, seeds, strict=True)))
        return [group for answer in answers for group in answer]

    async def _request(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Send a request, and retry it on another server if one fails."""
        greedy = sampling.temperature == 0
        # vLLM refuses several greedy completions of one prompt, which would all be the same.
        settings = replace(sampling, n=1 if greedy else sampling.n, seed=spread(sampling.seed))
        attempts = AsyncRetrying(stop=stop_after_attempt(_ATTEMPTS), retry=retry_if_exception_type(ServerError))
        number = 0
        try:
            async for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    answer = await self._attempt(prompts, settings)
        except RetryError as error:
            self.counts.failed += 1
            raise RolloutUnavailable(
                f"a request failed {_ATTEMPTS} times, most recently with: {error.last_attempt.exception()}. "
                f"{self._servers.state()}"
            ) from error
        except (RolloutUnavailable, RequestRefused, WeightSyncError):
            self.counts.failed += 1
            raise
        if number == 1:
            self.counts.ok += 1
        else:
            self.counts.retried += 1
        return [group * sampling.n for group in answer] if greedy else answer

    async def _attempt(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        limit = self._config.server_retry_timeout_seconds
        await self._servers.until(self._any_ready, limit, f"no rollout server came back within {limit:g} s")
        # Break ties by the longest idle time, so that a new server does not get all the work.
        server = min(self._servers.ready, key=lambda one: (one.outstanding, one.last_request))
        self._sent += 1
        server.last_request = self._sent
        self.counts.by_server[server.url] += 1
        try:
            return await server.complete(prompts, sampling)
        except ServerError as error:
            self._servers.mark_down(server, error)
            raise

    def _connect(self, url: str) -> VllmServer:
        assert self._session is not None
        return VllmServer(url, self._session, self._model_name, self._stop)

    async def _follow(self, file: UrlFile) -> None:
        while True:
            urls = file.poll()
            if urls is not None and set(urls) != {server.url for server in self._servers.listed}:
                logger.info("the rollout servers are now %s", ", ".join(urls))
                self._follow_list(urls)
            await asyncio.sleep(self._list_seconds)

    def _follow_list(self, urls: Sequence[str]) -> None:
        self._listed = tuple(dict.fromkeys(urls))
        self._servers.follow(urls)
        counts = self.counts.by_server
        self.counts.by_server = {server.url: counts.get(server.url, 0) for server in self._servers.listed}

    def _any_ready(self) -> bool:
        return bool(self._servers.ready)

    async def _report_progress(self, began: float) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            waiting = "; ".join(
                f"{server.url}: {server.error}" for server in self._servers.listed if server.state != "ready"
            )
            self._waiting(f"waiting for rollout servers for {time.monotonic() - began:.0f} s: {waiting}")
