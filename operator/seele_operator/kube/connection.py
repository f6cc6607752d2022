"""A connection to the API server: JSON both ways, and streams of lines. The official client supplies address,
credentials and TLS; its models are not used, since they cost several times as much as the request itself."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import time
import urllib.request
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, Literal, Self
from urllib.parse import urlencode, urlsplit

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.client.rest import should_bypass_proxies
from kubernetes.config import ConfigException

from seele_operator.kube.errors import Answer, NoAnswer, NoCluster, Target, TimedOut, UntrustedCertificate, error_of
from seele_operator.kube.kubeconfig import find_cluster

IN_FLIGHT = 32
"""Concurrent requests: more would only wait in the API server instead of here."""
REQUEST_SECONDS = 15.0
"""Time limit of a request; admission webhooks alone may take 10 s of it."""
CONNECT_SECONDS = 5.0
LONGEST_LINE = 1 << 20
"""Bytes of the longest line of a stream that is held in memory."""
RELOAD_SECONDS = 10.0
"""Minimum time between two reloads of the credentials after a 401."""

ContentType = Literal[
    "application/json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
]
RequestSeen = Callable[[str, int, float], None]
"""Called after each request with its method, status code (0: no answer) and seconds."""


class ApiConnection:
    """Requests to the API server, at most `in_flight` at a time."""

    def __init__(
        self,
        configuration: Configuration,
        reload: Callable[[], Configuration],
        *,
        in_flight: int = IN_FLIGHT,
        on_request: RequestSeen | None = None,
    ) -> None:
        """`reload` loads the configuration again, with fresh credentials; it is called in a thread. Raises NoCluster."""
        self._slots = asyncio.Semaphore(in_flight)
        self._on_request = on_request
        self._reload_configuration = reload
        self._reloading = asyncio.Lock()
        self._reloaded = -RELOAD_SECONDS
        self._retired: list[ApiClient] = []
        self._client = self._new_client(configuration)

    @classmethod
    async def open(
        cls,
        kubeconfig: str | None = None,
        context: str | None = None,
        *,
        in_flight: int = IN_FLIGHT,
        on_request: RequestSeen | None = None,
    ) -> Self:
        """Find the API server as `find_cluster` does. Nothing is sent yet. Raises NoCluster."""

        def find() -> Configuration:
            return find_cluster(kubeconfig, context).configuration

        return cls(await asyncio.to_thread(find), find, in_flight=in_flight, on_request=on_request)

    async def close(self) -> None:
        """Close all connections."""
        for client in (self._client, *self._retired):
            await client.close()  # type: ignore[no-untyped-call]

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str | int] | None = None,
        content_type: ContentType = "application/json",
        before: Callable[[], None] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Answer:
        """Send a request; after a 401, send it once more with fresh credentials.

        `before` is called immediately before each attempt, after any waiting for a slot, and may raise. Returns any
        answer, whatever its code; raises ClusterUnavailable if none came within `seconds`.
        """
        url = f"{path}?{urlencode(query)}" if query else path
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        async with self._slots:
            for last in (False, True):
                client = self._client
                if before is not None:
                    before()
                began, code = time.monotonic(), 0
                try:
                    with _connection_errors(f"{method} {path}", seconds):
                        response = await self._send(client, method, url, body, content_type, timeout)
                        content = await response.read()
                    code = response.status
                finally:
                    if self._on_request is not None:
                        self._on_request(method, code, time.monotonic() - began)
                if code != 401 or last or not await self._fresh_credentials(client):
                    break
        return _answer(response, content)

    async def lines(
        self, target: Target, path: str, query: Mapping[str, str], *, silence_seconds: float
    ) -> AsyncGenerator[bytes]:
        """The lines of an answer as they arrive, however long that takes; takes no slot. Long ones arrive in pieces.

        Raises TimedOut after `silence_seconds` without a line, and for an answer that is an error what `error_of` says.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        with _connection_errors(f"GET {path}", silence_seconds):
            for last in (False, True):
                client = self._client
                response = await self._send(
                    client, "GET", f"{path}?{urlencode(query)}", None, "application/json", timeout
                )
                async with response:
                    if response.status == 401 and not last and await self._fresh_credentials(client):
                        continue
                    if response.status >= 300:
                        raise error_of(target, _answer(response, await response.read()))
                    unfinished = b""
                    async for chunk in response.content.iter_any():
                        *lines, unfinished = (unfinished + chunk).split(b"\n")
                        for line in lines:
                            yield line
                        if len(unfinished) > LONGEST_LINE:
                            yield unfinished
                            unfinished = b""
                    if unfinished:
                        yield unfinished
                    return

    async def _send(
        self,
        client: ApiClient,
        method: str,
        url: str,
        body: Any,
        content_type: ContentType,
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Send a request; the body of the answer is not read yet."""
        configuration = client.configuration
        headers = {"Accept": "application/json, */*", "Content-Type": content_type, "User-Agent": "seele"}
        token = await configuration.get_api_key_with_prefix("BearerToken")
        if token:
            headers["Authorization"] = token.strip()
        answer = await client.rest_client.request(  # type: ignore[no-untyped-call]
            method, configuration.host + url, headers=headers, body=body, _request_timeout=timeout
        )
        response: aiohttp.ClientResponse = answer.response
        return response

    async def _fresh_credentials(self, used: ApiClient) -> bool:
        """Load the credentials again (tokens and certificates are rotated, plugins issue new ones); False if that fails
        or was done a moment ago.
        """
        async with self._reloading:
            if self._client is not used:
                return True
            if time.monotonic() - self._reloaded < RELOAD_SECONDS:
                return False
            self._reloaded = time.monotonic()
            try:
                fresh = self._new_client(await asyncio.to_thread(self._reload_configuration))
            except NoCluster:
                return False
            # Other requests may still use the previous client; those of the one before it are over.
            for client in self._retired:
                await client.close()  # type: ignore[no-untyped-call]
            self._retired = [self._client]
            self._client = fresh
            return True

    def _new_client(self, configuration: Configuration) -> ApiClient:
        configuration.connection_pool_maxsize = 0  # unlimited: the slots limit requests, and streams take none
        configuration.proxy = _proxy(configuration)
        # aiohttp would look for a proxy in a thread for each request, which takes twice the request's own work.
        configuration.client_session_kwargs = {"trust_env": False}
        try:
            return ApiClient(configuration)
        except OSError as error:  # also an SSLError
            reason = f"certificates for {configuration.host} cannot be used: {_reason(error)}"
            raise NoCluster(f"kubeconfig: {reason}; correct them, or log in again") from error


def _proxy(configuration: Configuration) -> str | None:
    """The proxy of the kubeconfig or the environment, unless NO_PROXY excludes the API server."""
    proxies = urllib.request.getproxies()
    proxy: str | None = configuration.proxy or proxies.get(urlsplit(configuration.host).scheme) or proxies.get("all")
    return None if proxy is None or should_bypass_proxies(configuration.host, proxies.get("no", "")) else proxy


def default_identity() -> str:
    """The name of this machine or pod."""
    return os.environ.get("HOSTNAME") or socket.gethostname()


@contextlib.contextmanager
def _connection_errors(request: str, seconds: float) -> Iterator[None]:
    """Turn the errors of a connection into NoAnswer."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise UntrustedCertificate(request, _reason(error.certificate_error)) from error
    except aiohttp.ConnectionTimeoutError as error:
        raise NoAnswer(request, f"no connection within {CONNECT_SECONDS:g} s") from error
    except TimeoutError as error:
        raise TimedOut(request, f"no answer within {seconds:g} s") from error
    except ConfigException as error:
        raise NoAnswer(request, f"no token: {error}") from error
    except (aiohttp.ClientError, OSError) as error:
        raise NoAnswer(request, _reason(getattr(error, "os_error", error))) from error


def _reason(error: BaseException) -> str:
    """`Connection refused`, without the words and addresses that the libraries put around it."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    reason = getattr(error, "strerror", None) or str(error)
    return " ".join(reason.split()) or type(error).__name__


def _answer(response: aiohttp.ClientResponse, content: bytes) -> Answer:
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        body = None
    retry_after = response.headers.get("Retry-After", "")
    seconds = float(retry_after) if retry_after.isdecimal() else None
    if isinstance(body, dict):
        return Answer(response.status, body, "", seconds)
    return Answer(response.status, {}, content.decode(errors="replace"), seconds)
