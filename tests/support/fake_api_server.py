"""A small API server for tests that need a kubelet behind it: SeeleRuns, pods, and logs that grow, end and break."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from aiohttp import web

NAMESPACE = "default"
RUNS = f"/apis/seele.dev/v1alpha1/namespaces/{NAMESPACE}/seeleruns"
Body = dict[str, Any]


@dataclass
class FakeLog:
    """What a container has written so far: (time stamp, line)."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    ended: bool = False
    requests: list[dict[str, str]] = field(default_factory=list)
    connections: int = 0
    """Connections that are open now."""
    generation: int = 0
    """Grows when all connections are broken."""


class FakeApiServer(AbstractContextManager["FakeApiServer"]):
    """`with FakeApiServer() as server:`, on a port of its own, in a thread of its own."""

    url: str

    def __init__(self) -> None:
        self.runs: dict[str, Body] = {}
        self.pods: list[Body] = []
        self.logs: dict[tuple[str, str], FakeLog] = {}
        self.refusals: dict[str, web.Response | Callable[[], web.Response]] = {}
        """Answers by the end of a path, instead of what would be answered."""
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for this server."""
        path = folder / "fake.kubeconfig"
        content = {
            "clusters": [{"name": "fake", "cluster": {"server": self.url}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake"}}],
            "current-context": "fake",
        }
        path.write_text(yaml.safe_dump(content))
        return path

    def log(self, pod: str, container: str) -> FakeLog:
        """The log of a container, which exists from now on."""
        return self.logs.setdefault((pod, container), FakeLog())

    def change(self, act: Callable[[], None]) -> None:
        """Change something, between requests, and let those that wait see it."""

        async def changing() -> None:
            async with self._changed:
                act()
                self._changed.notify_all()

        asyncio.run_coroutine_threadsafe(changing(), self._loop).result(10)

    def write(self, pod: str, container: str, *lines: tuple[str, str], ended: bool = False) -> None:
        """Let a container write lines, and perhaps end."""

        def act() -> None:
            log = self.log(pod, container)
            log.lines += lines
            log.ended = log.ended or ended

        self.change(act)

    def break_connections(self, pod: str, container: str) -> None:
        """Break all connections to a log."""

        def act() -> None:
            self.log(pod, container).generation += 1

        self.change(act)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())

    async def _start(self) -> None:
        app = web.Application(middlewares=[self._refuse])
        app.router.add_get(RUNS, self._list_runs)
        app.router.add_get(f"{RUNS}/{{name}}", self._get_run)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods", self._list_pods)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/events", self._list_events)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}/pods/{{name}}/log", self._get_log)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    @web.middleware
    async def _refuse(self, request: web.Request, handler: Any) -> web.StreamResponse:
        for ending, answer in self.refusals.items():
            if request.path.endswith(ending):
                return answer() if callable(answer) else answer
        answered: web.StreamResponse = await handler(request)
        return answered

    async def _list_runs(self, request: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": list(self.runs.values())})

    async def _get_run(self, request: web.Request) -> web.Response:
        body = self.runs.get(request.match_info["name"])
        return missing(request) if body is None else web.json_response(body)

    async def _list_pods(self, request: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": self.pods})

    async def _list_events(self, request: web.Request) -> web.Response:
        return web.json_response({"metadata": {}, "items": []})

    async def _get_log(self, request: web.Request) -> web.StreamResponse:
        log = self.logs.get((request.match_info["name"], request.query["container"]))
        if log is None:
            return missing(request)
        log.requests.append(dict(request.query))
        response = web.StreamResponse()
        await response.prepare(request)
        generation = log.generation
        unsent = _first(log, request.query)

        def news() -> bool:
            return log.ended or len(log.lines) > unsent or log.generation != generation

        log.connections += 1
        try:
            while True:
                while unsent < len(log.lines):
                    await response.write("{} {}\n".format(*log.lines[unsent]).encode())
                    unsent += 1
                if log.ended or request.query.get("follow") != "true":
                    return response
                async with self._changed:
                    await self._changed.wait_for(news)
                if log.generation != generation:
                    # In the middle of an answer, as when a load balancer gives up.
                    assert request.transport is not None
                    request.transport.abort()
                    return response
        finally:
            log.connections -= 1


def status(code: int, reason: str, message: str, **details: object) -> web.Response:
    """An error of the API server."""
    body = {"kind": "Status", "reason": reason, "message": message, "details": details, "code": code}
    return web.json_response(body, status=code)


def missing(request: web.Request) -> web.Response:
    name = request.match_info["name"]
    return status(404, "NotFound", f'"{name}" not found', name=name, kind="pods")


def _first(log: FakeLog, query: Mapping[str, str]) -> int:
    """Index of the first line that is wanted."""
    if "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"])
        return next((i for i, (stamp, _) in enumerate(log.lines) if _seconds(stamp) >= since), len(log.lines))
    return max(0, len(log.lines) - int(query["tailLines"])) if "tailLines" in query else 0


def _seconds(stamp: str) -> datetime:
    return datetime.fromisoformat(stamp.partition(".")[0].removesuffix("Z") + "+00:00")
