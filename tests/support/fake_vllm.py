"""A server with the part of vLLM's API that training uses, for injecting failures; its policy is a formula.

Its "weights" are one number: that in the model folder's file `number`. The logprob of every token is minus that
number, so the folder determines the answers of a correct server.
"""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

INITIAL_NUMBER = 1


class FakeVllm:
    """One server. `restart()` brings it back at the same address with the initial weights; flags inject failures."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.seeds: list[int] = []
        self.bodies: list[dict[str, Any]] = []
        self.failing = False
        """Answer completions with 500."""
        self.silent = False
        """Never answer completions."""
        self.stale = False
        """Answer 200 to a reload and keep the old weights."""
        self.short_logprobs = False
        """Omit the last logprob of a completion."""
        self.reload_status = 200
        self.keeps_cache = False
        self.stuck_paused = False
        self.drops_next_resume = False
        """Close the connection instead of answering the next /resume."""
        self.held: asyncio.Event | None = None
        """If set, completions wait for it."""
        self.reload_held: asyncio.Event | None = None
        """If set, reloads wait for it."""
        self.resume_status = 200
        self.lost = False
        """Answer nothing at all, like a machine without network."""
        self.version: str | None = "0.32.0"
        """Answer of /version; None if it has no such route."""
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._forget()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._forget()
        application = web.Application(middlewares=[self._answer])
        for method, route, handler in (
            ("GET", "/health", self._health),
            ("GET", "/version", self._version),
            ("GET", "/weight_info", self._weight_info),
            ("GET", "/is_paused", self._is_paused),
            ("POST", "/update_weight_version", self._label),
            ("POST", "/pause", self._pause),
            ("POST", "/resume", self._resume),
            ("POST", "/collective_rpc", self._reload),
            ("POST", "/reset_prefix_cache", self._reset),
            ("POST", "/v1/completions", self._complete),
        ):
            application.router.add_route(method, route, handler)
        self._runner = web.AppRunner(application, shutdown_timeout=0.05, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    def _forget(self) -> None:
        self.number: float = INITIAL_NUMBER
        self.loaded: list[float] = []
        """The numbers that it was given since its start."""
        self.label = "default"
        self.paused = False

    @web.middleware
    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self.lost:
            await asyncio.Event().wait()
        return await handler(request)

    async def _health(self, _: web.Request) -> web.Response:
        self.requests["health"] += 1
        return web.Response()

    async def _version(self, _: web.Request) -> web.Response:
        if self.version is None:
            raise web.HTTPNotFound
        return web.json_response({"version": self.version})

    async def _weight_info(self, _: web.Request) -> web.Response:
        return web.json_response({"weight_version": self.label})

    async def _is_paused(self, _: web.Request) -> web.Response:
        return web.json_response({"is_paused": self.paused})

    async def _label(self, request: web.Request) -> web.Response:
        self.label = (await request.json())["new_version"]
        return web.json_response({"success": True, "new_version": self.label})

    async def _pause(self, _: web.Request) -> web.Response:
        self.requests["pause"] += 1
        self.paused = True
        return web.json_response({"status": "paused"})

    async def _resume(self, request: web.Request) -> web.Response:
        self.requests["resume"] += 1
        if self.drops_next_resume and request.transport is not None:
            self.drops_next_resume = False
            request.transport.abort()
            return web.Response()
        if self.resume_status != 200:
            return web.Response(status=self.resume_status, text="cannot resume")
        self.paused = self.stuck_paused
        return web.json_response({"status": "resumed"})

    async def _reload(self, request: web.Request) -> web.Response:
        self.requests["reload"] += 1
        if not self.paused:
            return web.Response(status=500, text="reload without a pause")
        if self.reload_held is not None:
            await self.reload_held.wait()
        if self.reload_status != 200:
            return web.Response(status=self.reload_status, text="cannot reload")
        if not self.stale:
            folder = Path((await request.json())["kwargs"]["weights_path"])
            self.number = float((folder / "number").read_text())
            self.loaded.append(self.number)
        return web.json_response({"results": [None]})

    async def _reset(self, _: web.Request) -> web.Response:
        return web.json_response({"success": not self.keeps_cache})

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        prompts = body["prompt"]
        if body.get("prompt_logprobs") is not None:
            return web.json_response({"choices": [self._scored(i, prompt) for i, prompt in enumerate(prompts)]})
        self.requests["completions"] += 1
        self.seeds.append(body["seed"])
        self.bodies.append(body)
        if self.failing:
            return web.Response(status=500, text="out of memory")
        if self.silent:
            await asyncio.Event().wait()
        number = self.number
        if self.held is not None:
            await self.held.wait()
        choices = []
        for prompt in prompts:
            for offset in range(body["n"]):
                draw = random.Random(f"{body['seed'] + offset} {prompt}")
                tokens = [draw.randrange(100) for _ in range(draw.randint(1, body["max_tokens"]))]
                choices.append(self._choice(len(choices), prompt, tokens, number))
        return web.json_response({"choices": choices})

    def _choice(self, index: int, prompt: list[int], tokens: list[int], number: int) -> dict[str, Any]:
        logprobs = [-float(number)] * (len(tokens) - self.short_logprobs)
        return {
            "index": index,
            "token_ids": tokens,
            "prompt_token_ids": prompt,
            "finish_reason": "stop",
            "logprobs": {"token_logprobs": logprobs},
        }

    def _scored(self, index: int, prompt: list[int]) -> dict[str, Any]:
        entries = [None, *({str(token): {"logprob": -float(self.number), "rank": 1}} for token in prompt[1:])]
        return {"index": index, "prompt_token_ids": prompt, "prompt_logprobs": entries}
