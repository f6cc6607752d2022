"""Who belongs to the pool: servers that come, go, fail and come back, each watched by a task of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.managed_server import ManagedServer, WeightsPush
from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.rollout.vllm_client import ServerError, VllmServer

logger = logging.getLogger(__name__)


class ServerSet:
    """The servers that are listed now, in `members`; `policy` is what each must serve before it is ready.

    `connect` makes the client of a URL, and `before_push` is asked before weights are pushed to any server: what it
    raises ends the run.
    """

    def __init__(
        self,
        config: RolloutOptions,
        connect: Callable[[str], VllmServer],
        before_push: Callable[[], None],
        probe_seconds: float,
    ) -> None:
        self.members: list[ManagedServer] = []
        self.policy: WeightsPush | None = None
        self._config = config
        self._connect = connect
        self._before_push = before_push
        self._probe_seconds = probe_seconds
        self._tasks: dict[ManagedServer, list[asyncio.Task[None]]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._fatal: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[ManagedServer]:
        """The servers that can be asked."""
        return [member for member in self.members if member.state == "ready"]

    def follow(self, urls: Iterable[str]) -> None:
        """Make `urls` the list: watch servers that are new in it, and let go of those that are no longer in it.

        A server that is let go gets no new request. Those that it has may finish; where it dies of its removal they
        fail as on any server that dies, and are asked again elsewhere.
        """
        wanted = dict.fromkeys(urls)
        known = {member.url: member for member in self.members}
        for url, member in known.items():
            if url not in wanted:
                self._dismiss(member)
        for url in wanted:
            if url not in known:
                self._admit(url)
        self._notify()

    async def close(self) -> None:
        """Stop watching."""
        tasks = [*(task for tasks in self._tasks.values() for task in tasks), *self._leaving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def update(self, policy: WeightsPush) -> None:
        """Bring the servers that are ready to `policy`; the others get it when they are up.

        A server that fails is out of use until it is well. Raises what no retry can help, such as WeightSyncError.
        """
        self.policy = policy
        live = self.ready
        for member in live:
            member.state = "updating"
        updates = {member: self._begin(member, self._update(member, policy)) for member in live}
        try:
            await self.until(lambda: not any(member.state == "updating" for member in live))
            for member, update in updates.items():
                if member.state != "retired":
                    await update
        finally:
            for member, update in updates.items():
                # One that was let go is being broken off already; a second time would keep it from resuming its server.
                if member.state != "retired":
                    update.cancel()

    async def until(self, condition: Callable[[], bool], seconds: float | None = None, otherwise: str = "") -> None:
        """Wait for a condition on the members. Raises RolloutUnavailable after the time limit, and what is fatal."""
        try:
            async with asyncio.timeout(seconds):
                while self._fatal is None and not condition():
                    await self._changed.wait()
        except TimeoutError as error:
            raise RolloutUnavailable(f"{otherwise}. {self.state()}") from error
        if self._fatal is not None:
            raise self._fatal

    def state(self) -> str:
        """How all servers are, in words."""
        return (
            "Servers: "
            + "; ".join(
                f"{member.url} {member.state}" + (f" ({member.error})" if member.state != "ready" else "")
                for member in self.members
            )
            + ". Look at the logs of the rollout servers"
        )

    def mark_down(self, member: ManagedServer, error: Exception) -> None:
        """Stop using a server until it has been joined again."""
        member.mark_down(error)
        self._notify()

    def _mark_ready(self, member: ManagedServer) -> None:
        member.mark_ready()
        self._notify()

    def _admit(self, url: str) -> None:
        member = ManagedServer(self._connect(url), self._config, self._before_push)
        self.members.append(member)
        self._begin(member, self._watch(member, self._leaving.get(url)))

    def _dismiss(self, member: ManagedServer) -> None:
        self.members.remove(member)
        member.retire()
        tasks = self._tasks.pop(member, [])
        for task in tasks:
            task.cancel()
        before = self._leaving.get(member.url)
        self._leaving[member.url] = asyncio.create_task(self._see_off(member, tasks, before))

    async def _see_off(
        self, member: ManagedServer, tasks: list[asyncio.Task[None]], before: asyncio.Task[None] | None
    ) -> None:
        """Wait until nothing of ours is going on at a server any more, so that it may be listed again."""
        if before is not None:
            await asyncio.wait([before])
        # A weight push that is broken off resumes its server first.
        await asyncio.gather(*tasks, return_exceptions=True)
        await member.drain()
        if self._leaving.get(member.url) is asyncio.current_task():
            del self._leaving[member.url]

    def _begin(self, member: ManagedServer, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks = self._tasks.setdefault(member, [])
        tasks.append(task)

        def ended(_: asyncio.Task[None]) -> None:
            tasks.remove(task)
            # It ends by itself with an error only for what no retry can help: every request then raises it.
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(member, error)

        task.add_done_callback(ended)
        return task

    async def _watch(self, member: ManagedServer, before: asyncio.Task[None] | None) -> None:
        """Keep one server in use for as long as it is well, and bring it back when it is again.

        `before` ends when its last stay in the list is over, if it had one.
        """
        if before is not None:
            await asyncio.wait([before])
        # A cancelled call to a server may end with that server's error instead, so the state is looked at too.
        while self._fatal is None and member.state != "retired":
            try:
                if member.state == "ready":
                    await member.check()
                elif member.state in ("starting", "down"):
                    await self._join(member)
            except ServerError as error:
                self.mark_down(member, error)
            await self._pause(member)

    async def _join(self, member: ManagedServer) -> None:
        await member.join(self.policy)
        # New weights may have come while it took the last ones.
        while member.policy is not self.policy:
            await member.adopt(self.policy)
        self._mark_ready(member)

    async def _update(self, member: ManagedServer, policy: WeightsPush) -> None:
        try:
            await member.adopt(policy)
            self._mark_ready(member)
        except ServerError as error:
            self.mark_down(member, error)
        finally:
            if member.state == "updating":
                self.mark_down(member, ServerError(f"the update to version {policy.version} did not end"))

    async def _pause(self, member: ManagedServer) -> None:
        if member.left.is_set():
            await asyncio.sleep(min(self._probe_seconds, 0.5))
            return
        try:
            async with asyncio.timeout(self._probe_seconds):
                await member.left.wait()
        except TimeoutError:
            return

    def _fail(self, member: ManagedServer, error: BaseException) -> None:
        if member.state == "retired":
            logger.info("rollout server %s was let go and failed: %s", member.url, error)
            return
        if self._fatal is None:
            self._fatal = error
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
