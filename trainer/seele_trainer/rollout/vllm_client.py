"""The parts of vLLM's HTTP API that training needs. No other module knows its routes, fields and quirks.

Checked against vLLM 0.32. The routes for weights only exist if the server runs with VLLM_SERVER_DEV_MODE=1.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt

from seele_trainer.rollout.protocol import Completion, Sampling
from seele_trainer.termination import ExpectedFailure

OLDEST_VLLM = (0, 32)
"""The oldest vLLM that is known to work: 0.26 has no route that tells or changes the label of the weights."""

_CONTROL_SECONDS = 30.0
_HEALTH_SECONDS = 30.0
# uvicorn closes idle connections after 5 s; a client that keeps them longer sends requests into closed ones.
_KEEP_IDLE_CONNECTIONS_SECONDS = 3.0
# A replaced server comes back under the same name with another address.
_KEEP_ADDRESSES_SECONDS = 2


class ServerError(RuntimeError):
    """One server could not fulfil a request; another one, or the same one later, may."""


class ServerUnreachable(ServerError):
    """No answer: the connection was refused or lost, or the time limit passed."""


class ServerFailed(ServerError):
    """The server answered with a failure (5xx, 408 or 429), or with 200 without doing what was requested."""


class BadAnswer(ServerError):
    """The server answered 200 with unexpected content."""


class RequestRefused(ExpectedFailure):
    """The server rejected the request itself (4xx): every server would, so it is not retried."""


class RouteMissing(RequestRefused):
    """The server has no such route for training."""


def open_session(resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    """A session that counts the connections it opens to each server (`VllmServer.connections`).

    `resolver` looks names up; the default is the system's.
    """
    trace = aiohttp.TraceConfig()

    async def opened(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        server: VllmServer = context.trace_request_ctx
        server.connections += 1

    trace.on_connection_create_end.append(opened)
    connector = aiohttp.TCPConnector(
        limit=0,
        keepalive_timeout=_KEEP_IDLE_CONNECTIONS_SECONDS,
        ttl_dns_cache=_KEEP_ADDRESSES_SECONDS,
        resolver=resolver,
    )
    return aiohttp.ClientSession(connector=connector, trace_configs=[trace])


class VllmServer:
    """One server at `url` (`http://host:port`) that serves `model_name`; `session` comes from `open_session`.

    `stop` strings end completions early. A server without a tokenizer cannot see them, so the answer is not sure to end.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession, model_name: str, stop: Sequence[str] = ()) -> None:
        self.url = url.rstrip("/")
        self.connections = 0
        """TCP connections opened so far. A restarted server cannot be reached through an old one."""
        self._session = session
        self._model = model_name
        self._stop = list(stop)

    async def health(self) -> None:
        """Raises ServerError unless the server is up and its engine is alive."""
        await self._call("GET", "/health", seconds=_HEALTH_SECONDS, parse=False)

    async def weight_label(self) -> str:
        """The current label of the weights; `default` for a server with its initial weights.

        This is the first request to a server that joins. Raises RequestRefused if it is too old for training.
        """
        answer = await self._label_call("GET", "/weight_info")
        label = answer.get("weight_version")
        if not isinstance(label, str):
            raise BadAnswer(f"{self.url}/weight_info has no weight_version: {_short(answer)}")
        return label

    async def label_weights(self, label: str) -> None:
        """Label the weights that are served now; a restart loses the label."""
        answer = await self._label_call("POST", "/update_weight_version", {"new_version": label})
        if answer.get("success") is not True:
            raise ServerFailed(f"{self.url} did not label its weights: {_short(answer)}")

    async def complete(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seconds: float, version: int = 0
    ) -> list[list[Completion]]:
        """Sample `sampling.n` completions for each prompt by policy `version`, within a time limit in seconds.

        The result is in the order of `prompts`. With `n` > 1 vLLM uses seed, seed + 1, … for each prompt, so give
        unrelated requests seeds that are far apart. Temperature 0 needs n = 1.
        """
        body = {
            **self._prompt(prompts),
            "n": sampling.n,
            "seed": sampling.seed,
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            # Token ids and log-probabilities include the token that completes a stop string; only vLLM's text does not.
            "stop": self._stop,
            "logprobs": 0,
            # Tokens as ids: text would need a tokenizer, cost time and be ambiguous.
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
            # A model's generation_config.json sets whatever a request omits; Qwen's sets top_k to 20.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        choices = await self._completions(body, len(prompts) * sampling.n, seconds)
        try:
            sampled = [_completion(choice, self.url, version) for choice in choices]
            self._check_echo(choices, [prompt for prompt in prompts for _ in range(sampling.n)])
        except (KeyError, TypeError) as error:
            raise BadAnswer(f"{self.url} omitted {error} from a completion: is it vLLM 0.32 or later?") from error
        return [sampled[start : start + sampling.n] for start in range(0, len(sampled), sampling.n)]

    async def score(self, sequences: Sequence[Sequence[int]], seconds: float) -> list[list[float]]:
        """Log-probabilities at temperature 1 of given sequences, each one value shorter than its sequence."""
        body = {**self._prompt(sequences), "n": 1, "max_tokens": 1, "temperature": 1.0, "prompt_logprobs": 0}
        choices = await self._completions(body, len(sequences), seconds)
        try:
            self._check_echo(choices, sequences)
            return [
                _prompt_logprobs(sequence, choice["prompt_logprobs"])
                for sequence, choice in zip(sequences, choices, strict=True)
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswer(f"{self.url} scored a prompt incompletely: {type(error).__name__}: {error}") from error

    async def load_weights(self, folder: Path, seconds: float) -> None:
        """Replace the weights by those of a model folder: drain, pause, reload, reset the prefix cache, resume.

        Every answer is checked, and the server is resumed in any case. Success still verifies nothing about the
        weights: score a canary. Raises ServerError; the engine may then be unusable until it reloads or restarts
        (after a reload that failed half-way, vLLM answers /health and dies on the next request).
        """
        try:
            async with asyncio.timeout(seconds), self._paused():
                arguments = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
                answer = await self._call("POST", "/collective_rpc", arguments, seconds=seconds)
                results = answer.get("results")
                if not isinstance(results, list) or not results or any(result is not None for result in results):
                    raise ServerFailed(f"{self.url} did not reload {folder}: {_short(answer)}")
                answer = await self._call("POST", "/reset_prefix_cache")
                if answer.get("success") is not True:
                    raise ServerFailed(f"{self.url} kept the prefix cache of its old weights: {_short(answer)}")
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url} did not reload {folder} within {seconds:g} s") from error

    @asynccontextmanager
    async def _paused(self) -> AsyncIterator[None]:
        """The server paused, without requests in flight; it is resumed in any case."""
        try:
            answer = await self._call("POST", "/pause?mode=wait", seconds=None)
            paused = await self._call("GET", "/is_paused")
            if answer.get("status") != "paused" or paused.get("is_paused") is not True:
                raise ServerFailed(f"{self.url} did not pause: {_short(answer)}, then {_short(paused)}")
            yield
        finally:
            # vLLM drops the connection after a failed reload, so the first attempt to resume may fail.
            attempts = AsyncRetrying(
                stop=stop_after_attempt(3), retry=retry_if_exception_type(ServerUnreachable), reraise=True
            )
            async for attempt in attempts:
                with attempt:
                    await self._call("POST", "/resume")
            paused = await self._call("GET", "/is_paused")
            if paused.get("is_paused") is not False:
                raise ServerFailed(f"{self.url} stays paused after a reload: {_short(paused)}")

    async def _label_call(self, method: str, route: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A request about the label of the weights, which old versions of vLLM do not have."""
        try:
            return await self._call(method, route, body)
        except RouteMissing as error:
            raise RequestRefused(_unfit(self.url, route, await self._version())) from error

    async def _version(self) -> str:
        """The server's version of vLLM; empty if it does not say."""
        try:
            version = (await self._call("GET", "/version")).get("version")
        except (ServerError, RequestRefused):
            return ""
        return version if isinstance(version, str) else ""

    def _prompt(self, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": [list(prompt) for prompt in prompts],
            "return_token_ids": True,
        }

    async def _completions(self, body: dict[str, Any], count: int, seconds: float) -> list[dict[str, Any]]:
        answer = await self._call("POST", "/v1/completions", body, seconds=seconds)
        choices = answer.get("choices")
        if not isinstance(choices, list) or len(choices) != count:
            raise BadAnswer(f"{self.url} did not return {count} completions: {_short(answer)}")
        return sorted(choices, key=lambda choice: choice.get("index", 0))

    def _check_echo(self, choices: Sequence[dict[str, Any]], prompts: Sequence[Sequence[int]]) -> None:
        for choice, prompt in zip(choices, prompts, strict=True):
            echoed = choice.get("prompt_token_ids")
            if echoed is not None and echoed != list(prompt):
                raise BadAnswer(f"{self.url} completed a prompt other than the one it was given: {_short(echoed)}")

    async def _call(
        self,
        method: str,
        route: str,
        body: dict[str, Any] | None = None,
        *,
        seconds: float | None = _CONTROL_SECONDS,
        parse: bool = True,
    ) -> dict[str, Any]:
        """Send a request and check status and body of the answer. `seconds` None leaves the time limit to the caller."""
        try:
            async with self._session.request(
                method,
                self.url + route,
                json=body,
                timeout=aiohttp.ClientTimeout(total=seconds),
                trace_request_ctx=self,
            ) as response:
                status, text = response.status, await response.text()
        except TimeoutError as error:
            raise ServerUnreachable(f"{self.url}{route} gave no answer within {seconds} s") from error
        except aiohttp.ClientError as error:
            raise ServerUnreachable(f"{self.url}{route}: {type(error).__name__}: {error}") from error
        if status != 200:
            raise self._refusal(route, status, text)
        if not parse:
            return {}
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise BadAnswer(f"{self.url}{route} did not answer with JSON: {text[:200]!r}") from error
        if not isinstance(answer, dict):
            raise BadAnswer(f"{self.url}{route} did not answer with a JSON object: {text[:200]!r}")
        return answer

    def _refusal(self, route: str, status: int, text: str) -> ServerError | RequestRefused:
        message = f"{self.url}{route} answered {status}: {text[:500]}"
        if status >= 500 or status in {408, 425, 429}:
            return ServerFailed(message)
        if status in {404, 405} and not route.startswith("/v1/"):
            return RouteMissing(
                f"{message}. Start vLLM with VLLM_SERVER_DEV_MODE=1, which adds the routes for training"
            )
        return RequestRefused(message)


def _unfit(url: str, route: str, version: str) -> str:
    """Why a server without `route` cannot be used for training, and what to do."""
    oldest = ".".join(map(str, OLDEST_VLLM))
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) >= OLDEST_VLLM:
        return (
            f"{url} is vLLM {version} without its routes for training ({route}): start it with VLLM_SERVER_DEV_MODE=1"
        )
    named = f"vLLM {version}" if version else "a server of unknown version"
    return (
        f"{url} is {named}, which has no {route}: training needs vLLM {oldest} or later, started with "
        "VLLM_SERVER_DEV_MODE=1"
    )


def _completion(choice: dict[str, Any], url: str, version: int) -> Completion:
    tokens = tuple(choice["token_ids"])
    logprobs = tuple(map(float, choice["logprobs"]["token_logprobs"]))
    reason = choice["finish_reason"]
    if len(tokens) != len(logprobs) or not tokens:
        raise BadAnswer(f"{url} returned {len(tokens)} tokens with {len(logprobs)} log-probabilities")
    if reason not in ("stop", "length"):
        raise ServerFailed(f"{url} ended a completion with {reason!r}")
    return Completion(tokens, logprobs, reason, version)


def _prompt_logprobs(sequence: Sequence[int], entries: Sequence[dict[str, Any]]) -> list[float]:
    return [float(entry[str(token)]["logprob"]) for token, entry in zip(sequence[1:], entries[1:], strict=True)]


def _short(answer: object) -> str:
    return json.dumps(answer)[:300]
