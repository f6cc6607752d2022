"""The servers of the pool as they join, leave, fail and recover; a task watches each."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.managed_server import ManagedServer, WeightsPush
from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.rollout.vllm_client import ServerError, VllmServer

logger = logging.getLogger(__name__)


class ServerSet:
    """The servers that are `listed` now; `push` holds the weights that each must serve before it is ready.

    `connect` makes the client for a URL. `before_push` is called before weights are pushed to a server; if it raises,
    the run ends.
    """

    def __init__(
        self,
        config: RolloutOptions,
        connect: Callable[[str], VllmServer],
        before_push: Callable[[], None],
        probe_seconds: float,
    ) -> None:
        self.listed: list[ManagedServer] = []
        self.push: WeightsPush | None = None
        self._config = config
        self._connect = connect
        self._before_push = before_push
        self._probe_seconds = probe_seconds
        self._tasks: dict[ManagedServer, list[asyncio.Task[None]]] = {}
        self._draining: dict[str, asyncio.Task[None]] = {}
        self._fatal: BaseException | None = None
        self._changed = asyncio.Event()

    @property
    def ready(self) -> list[ManagedServer]:
        """The servers that can take requests."""
        return [server for server in self.listed if server.state == "ready"]

    def follow(self, urls: Iterable[str]) -> None:
        """Replace the list with `urls`: watch servers that are new, and release those that are no longer listed.

        A released server gets no new requests, and those in flight may finish. If it is killed first, they fail as on
        any lost server and are retried elsewhere.
        """
        wanted = dict.fromkeys(urls)
        known = {server.url: server for server in self.listed}
        for url, server in known.items():
            if url not in wanted:
                self._remove(server)
        for url in wanted:
            if url not in known:
                self._add(url)
        self._notify()

    async def close(self) -> None:
        """Stop watching."""
        tasks = [*(task for tasks in self._tasks.values() for task in tasks), *self._draining.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def update(self, push: WeightsPush) -> None:
        """Push weights to the servers that are ready; the others get them when they come up.

        A server that fails is not used until it recovers. Raises errors that no retry can fix, such as WeightSyncError.
        """
        self.push = push
        live = self.ready
        for server in live:
            server.state = "updating"
        updates = {server: self._begin(server, self._update(server, push)) for server in live}
        try:
            await self.until(lambda: not any(server.state == "updating" for server in live))
            for server, update in updates.items():
                if server.state != "retired":
                    await update
        finally:
            for server, update in updates.items():
                # A removed server's update is being cancelled already; cancelling twice would keep it from resuming.
                if server.state != "retired":
                    update.cancel()

    async def until(self, condition: Callable[[], bool], seconds: float | None = None, otherwise: str = "") -> None:
        """Wait for a condition. Raises RolloutUnavailable after the time limit, and fatal errors of any server."""
        try:
            async with asyncio.timeout(seconds):
                while self._fatal is None and not condition():
                    await self._changed.wait()
        except TimeoutError as error:
            raise RolloutUnavailable(f"{otherwise}. {self.state()}") from error
        if self._fatal is not None:
            raise self._fatal

    def state(self) -> str:
        """The state of all servers, in words."""
        return (
            "Servers: "
            + "; ".join(
                f"{server.url} {server.state}" + (f" ({server.error})" if server.state != "ready" else "")
                for server in self.listed
            )
            + ". Look at the logs of the rollout servers"
        )

    def mark_down(self, server: ManagedServer, error: Exception) -> None:
        """Stop using a server until it has been brought up again."""
        server.mark_down(error)
        self._notify()

    def _mark_ready(self, server: ManagedServer) -> None:
        server.mark_ready()
        self._notify()

    def _add(self, url: str) -> None:
        server = ManagedServer(self._connect(url), self._config, self._before_push)
        self.listed.append(server)
        self._begin(server, self._watch(server, self._draining.get(url)))

    def _remove(self, server: ManagedServer) -> None:
        self.listed.remove(server)
        server.retire()
        tasks = self._tasks.pop(server, [])
        for task in tasks:
            task.cancel()
        previous = self._draining.get(server.url)
        self._draining[server.url] = asyncio.create_task(self._drain(server, tasks, previous))

    async def _drain(
        self, server: ManagedServer, tasks: list[asyncio.Task[None]], previous: asyncio.Task[None] | None
    ) -> None:
        """Wait until a removed server has no task and no request of ours left, so that it can be listed again."""
        if previous is not None:
            await asyncio.wait([previous])
        # A cancelled weight push resumes its server first.
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.drain()
        if self._draining.get(server.url) is asyncio.current_task():
            del self._draining[server.url]

    def _begin(self, server: ManagedServer, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        tasks = self._tasks.setdefault(server, [])
        tasks.append(task)

        def ended(_: asyncio.Task[None]) -> None:
            tasks.remove(task)
            # A task only fails with an error that no retry can fix: every request then raises it.
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(server, error)

        task.add_done_callback(ended)
        return task

    async def _watch(self, server: ManagedServer, previous: asyncio.Task[None] | None) -> None:
        """Keep one server in use while it is healthy, and bring it back when it recovers.

        `previous` drains the same URL if it was listed before.
        """
        if previous is not None:
            await asyncio.wait([previous])
        # A cancelled call may end with the server's error instead of the cancellation, so check the state as well.
        while self._fatal is None and server.state != "retired":
            try:
                if server.state == "ready":
                    await server.check()
                elif server.state in ("starting", "down"):
                    await self._bring_up(server)
            except ServerError as error:
                self.mark_down(server, error)
            await self._pause(server)

    async def _bring_up(self, server: ManagedServer) -> None:
        await server.bring_up(self.push)
        # Newer weights may have arrived meanwhile.
        while server.push is not self.push:
            await server.serve(self.push)
        self._mark_ready(server)

    async def _update(self, server: ManagedServer, push: WeightsPush) -> None:
        try:
            await server.serve(push)
            self._mark_ready(server)
        except ServerError as error:
            self.mark_down(server, error)
        finally:
            if server.state == "updating":
                self.mark_down(server, ServerError(f"the update to version {push.version} did not end"))

    async def _pause(self, server: ManagedServer) -> None:
        if server.unused.is_set():
            await asyncio.sleep(min(self._probe_seconds, 0.5))
            return
        try:
            async with asyncio.timeout(self._probe_seconds):
                await server.unused.wait()
        except TimeoutError:
            return

    def _fail(self, server: ManagedServer, error: BaseException) -> None:
        if server.state == "retired":
            logger.info("removed rollout server %s failed: %s", server.url, error)
            return
        if self._fatal is None:
            self._fatal = error
        self._notify()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class UrlFile:
    """The list of servers in a file that the operator writes, one URL per line; every `poll` reads it again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: tuple[str, ...] | str | None = None
        self._settled: tuple[str, ...] | str | None = None

    def poll(self) -> tuple[str, ...] | None:
        """The URLs in the file if they changed, otherwise None.

        A change counts once two consecutive polls have read the same, so that a file that is being written is ignored.
        A file that is missing, empty or not a list of URLs changes nothing, and is logged once.
        """
        found = self._read()
        settled = found == self._last and found != self._settled
        self._last = found
        if not settled:
            return None
        self._settled = found
        if isinstance(found, str):
            logger.warning("the list of rollout servers is unchanged: %s %s", self._path, found)
            return None
        return found

    def _read(self) -> tuple[str, ...] | str:
        """The URLs, or what is wrong with the file."""
        try:
            text = self._path.read_text(encoding="utf-8")
        except OSError as error:
            return f"cannot be read: {error.strerror}"
        except UnicodeDecodeError:
            return "is not text"
        urls = tuple(dict.fromkeys(line.strip().rstrip("/") for line in text.splitlines() if line.strip()))
        wrong = next((url for url in urls if not _is_url(url)), None)
        if wrong is not None:
            return f"has a line that is not a URL: {wrong[:200]!r}"
        return urls or "is empty"


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        # Reading the port checks it.
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
