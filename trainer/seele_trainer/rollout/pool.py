"""Completions from stock vLLM servers: load balancing, retries, and weights that are proven before they are used."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
from tenacity import AsyncRetrying, RetryError, retry_if_exception_type, stop_after_attempt

from seele_trainer.config import Rollout
from seele_trainer.rollout.member import Member, Policy
from seele_trainer.rollout.protocol import (
    Canary,
    Completion,
    RequestCounts,
    RolloutUnavailable,
    Sampling,
    WeightSync,
    WeightSyncError,
)
from seele_trainer.rollout.seeds import spread
from seele_trainer.rollout.vllm_client import RequestRefused, ServerError, VllmServer, open_session

logger = logging.getLogger(__name__)

# A request that fails this often is likely to be what makes servers fail.
_ATTEMPTS = 6
_PREFIXES_PER_REQUEST = 32
_PROGRESS_SECONDS = 10.0


class VllmPool:
    """The rollout servers of a run behind the RolloutEngine protocol; a server that fails is used again when well.

    A server is only used while it serves the policy that `update_weights` was given last, proven by the canary. One
    that comes back after a restart, seen or unseen, has its initial weights and is updated first. Before the first
    update the servers are taken as they are, as version 0.
    """

    def __init__(
        self, urls: Sequence[str], config: Rollout, model_name: str = "seele", *, probe_seconds: float = 2.0
    ) -> None:
        self.counts = RequestCounts(by_server={url.rstrip("/"): 0 for url in urls})
        self._urls = tuple(urls)
        self._config = config
        self._model_name = model_name
        self._probe_seconds = probe_seconds
        self._token = uuid.uuid4().hex[:8]
        self._pushes = 0
        self._policy: Policy | None = None
        self._fatal: BaseException | None = None
        self._members: list[Member] = []
        self._watchers: list[asyncio.Task[None]] = []
        self._session: aiohttp.ClientSession | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Wait until at least one server can be used; the others join when they are up.

        Raises RolloutUnavailable after the start time limit, RequestRefused where a server lacks the routes that
        training needs.
        """
        self._session = open_session()
        self._members = [Member(VllmServer(url, self._session, self._model_name), self._config) for url in self._urls]
        self._watchers = [asyncio.create_task(self._watch(member)) for member in self._members]
        for watcher in self._watchers:
            watcher.add_done_callback(self._watched)
        began, limit = time.monotonic(), self._config.server_start_timeout_seconds
        progress = asyncio.create_task(self._report_progress(began))
        try:
            await self._until(self._any_ready, limit, f"no rollout server came up within {limit:g} s")
        finally:
            progress.cancel()
        ready = sum(member.state == "ready" for member in self._members)
        logger.info("%d of %d rollout servers ready after %.0f s", ready, len(self._members), time.monotonic() - began)

    async def close(self) -> None:
        """Stop watching the servers and close the connections to them."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        """Load a model folder as policy `version` on every server that is well, and prove it by the canary.

        A server that fails meanwhile is updated when it is back. Raises WeightSyncError where a server answers and
        serves other weights, RolloutUnavailable where none was updated and none came back in time.
        """
        began = time.monotonic()
        self._pushes += 1
        policy = Policy(directory.absolute(), version, canary, f"seele-{self._token}-{self._pushes}-v{version}")
        self._policy = policy
        live = [member for member in self._members if member.state == "ready"]
        for member in live:
            member.state = "updating"
        outcomes = await asyncio.gather(*(self._update(member, policy) for member in live), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        limit = self._config.server_retry_timeout_seconds
        await self._until(self._any_ready, limit, f"no rollout server took the weights of version {version}")
        updated = [member for member in self._members if member.state == "ready" and member.policy is policy]
        return WeightSync(
            version=version,
            seconds=time.monotonic() - began,
            canary_difference=max(member.canary_difference for member in updated),
            engines=len(updated),
        )

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Sample `sampling.n` completions of one prefix; the same seed, prefix and weights give the same tokens.

        Raises RolloutUnavailable when no server is left or all attempts failed, RequestRefused for a request that vLLM
        calls wrong, such as a prefix beyond the model's context.
        """
        return (await self._ask([prefix], sampling))[0]

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for many prefixes: greedy ones share requests, sampled ones get a request and a seed each."""
        if sampling.temperature == 0:
            parts = [prefixes[at : at + _PREFIXES_PER_REQUEST] for at in range(0, len(prefixes), _PREFIXES_PER_REQUEST)]
            seeds = [sampling.seed] * len(parts)
        else:
            parts = [[prefix] for prefix in prefixes]
            seeds = [spread(sampling.seed, index) for index in range(len(parts))]
        limit = asyncio.Semaphore(self._config.max_concurrent_problems)

        async def ask(part: Sequence[Sequence[int]], seed: int) -> list[list[Completion]]:
            async with limit:
                return await self._ask(part, Sampling(sampling.n, sampling.max_tokens, sampling.temperature, seed))

        answers = await asyncio.gather(*(ask(part, seed) for part, seed in zip(parts, seeds, strict=True)))
        return [group for answer in answers for group in answer]

    async def _ask(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """One request, on another server when one fails."""
        greedy = sampling.temperature == 0
        # vLLM refuses several greedy completions of one prompt: they are all the same one.
        asked = Sampling(1 if greedy else sampling.n, sampling.max_tokens, sampling.temperature, spread(sampling.seed))
        attempts = AsyncRetrying(stop=stop_after_attempt(_ATTEMPTS), retry=retry_if_exception_type(ServerError))
        number = 0
        try:
            async for attempt in attempts:
                with attempt:
                    number = attempt.retry_state.attempt_number
                    answer = await self._attempt(prompts, asked)
        except RetryError as error:
            self.counts.failed += 1
            raise RolloutUnavailable(
                f"a request failed {_ATTEMPTS} times, at last with: {error.last_attempt.exception()}. {self._state()}"
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
        await self._until(self._any_ready, limit, f"no rollout server came back within {limit:g} s")
        ready = [member for member in self._members if member.state == "ready"]
        member = min(ready, key=lambda one: (one.outstanding, self.counts.by_server[one.url]))
        self.counts.by_server[member.url] += 1
        try:
            return await member.complete(prompts, sampling)
        except ServerError as error:
            self._mark_down(member, error)
            raise

    async def _update(self, member: Member, policy: Policy) -> None:
        try:
            await member.adopt(policy)
            self._mark_ready(member)
        except ServerError as error:
            self._mark_down(member, error)
        except WeightSyncError as error:
            self._fail(error)
            raise
        finally:
            if member.state == "updating":
                self._mark_down(member, ServerError(f"the update to version {policy.version} did not end"))

    async def _watch(self, member: Member) -> None:
        """Keep one server in use for as long as it is well, and bring it back when it is again."""
        while self._fatal is None:
            try:
                if member.state == "ready":
                    await member.check()
                elif member.state in ("starting", "down"):
                    await self._join(member)
            except ServerError as error:
                self._mark_down(member, error)
            await self._pause(member)

    def _watched(self, watcher: asyncio.Task[None]) -> None:
        """A watcher ends by itself only for what no retry can help: every request then raises it."""
        if not watcher.cancelled() and (error := watcher.exception()) is not None:
            self._fail(error)

    async def _join(self, member: Member) -> None:
        await member.join(self._policy)
        # New weights may have come while it took the last ones.
        while member.policy is not self._policy:
            await member.adopt(self._policy)
        self._mark_ready(member)

    async def _pause(self, member: Member) -> None:
        if member.left.is_set():
            await asyncio.sleep(min(self._probe_seconds, 0.5))
            return
        try:
            async with asyncio.timeout(self._probe_seconds):
                await member.left.wait()
        except TimeoutError:
            return

    def _mark_down(self, member: Member, error: Exception) -> None:
        member.mark_down(error)
        self._notify()

    def _mark_ready(self, member: Member) -> None:
        member.mark_ready()
        self._notify()

    def _fail(self, error: BaseException) -> None:
        self._fatal = error
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _any_ready(self) -> bool:
        return any(member.state == "ready" for member in self._members)

    async def _until(self, condition: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Wait for a condition on the members. Raises RolloutUnavailable after the time limit, and what is fatal."""
        try:
            async with asyncio.timeout(seconds):
                while self._fatal is None and not condition():
                    await self._changed.wait()
        except TimeoutError as error:
            raise RolloutUnavailable(f"{otherwise}. {self._state()}") from error
        if self._fatal is not None:
            raise self._fatal

    def _state(self) -> str:
        return (
            "Servers: "
            + "; ".join(
                f"{member.url} {member.state}" + (f" ({member.error})" if member.state != "ready" else "")
                for member in self._members
            )
            + ". Look at the logs of the rollout servers"
        )

    async def _report_progress(self, began: float) -> None:
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            waiting = "; ".join(f"{member.url}: {member.error}" for member in self._members if member.state != "ready")
            logger.info("waiting for rollout servers for %.0f s: %s", time.monotonic() - began, waiting)
