"""A connection to the API server: its address, our credentials, and JSON both ways. The official client supplies the
first two; its models are not used, since they cost several times as much as the request itself."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config

from seele_operator.kube.errors import Answer, ClusterUnavailable, NoCluster

IN_FLIGHT = 32
"""Concurrent requests: more would only wait in the API server instead of here."""
REQUEST_SECONDS = 15.0
"""Time limit of a request; admission webhooks alone may take 10 s of it."""
CONNECT_SECONDS = 5.0
RELOAD_SECONDS = 10.0
"""Shortest time between two reloads of the credentials after a 401."""

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

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
        reload: Callable[[], Any],
        *,
        in_flight: int = IN_FLIGHT,
        on_request: RequestSeen | None = None,
    ) -> None:
        """`reload` is a coroutine function that loads the configuration again, with fresh credentials."""
        self._slots = asyncio.Semaphore(in_flight)
        self._in_flight = in_flight
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
    ) -> ApiConnection:
        """Find the API server by `kubeconfig`, else KUBECONFIG, the pod's service account, or ~/.kube/config.

        Nothing is sent yet. Raises NoCluster.
        """

        async def find() -> Configuration:
            return await find_configuration(kubeconfig, context)

        return cls(await find(), find, in_flight=in_flight, on_request=on_request)

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
        async with self._slots:
            for last in (False, True):
                client = self._client
                if before is not None:
                    before()
                answer = await self._send(client, method, url, body, content_type, seconds)
                if answer.code != 401 or last or not await self._fresh_credentials(client):
                    break
        return answer

    async def _send(
        self, client: ApiClient, method: str, url: str, body: Any, content_type: ContentType, seconds: float
    ) -> Answer:
        configuration = client.configuration
        headers = {"Accept": "application/json", "Content-Type": content_type, "User-Agent": "seele-operator"}
        try:
            token = await configuration.get_api_key_with_prefix("BearerToken")
        except (ConfigException, OSError) as error:  # its file is just being replaced, or its plugin fails
            raise ClusterUnavailable(f"{method} {url.partition('?')[0]}: no token: {error}") from error
        if token:
            headers["Authorization"] = token.strip()
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        began, code = time.monotonic(), 0
        try:
            response = await client.rest_client.request(  # type: ignore[no-untyped-call]
                method, configuration.host + url, headers=headers, body=body, _request_timeout=timeout
            )
            content = await response.read()
            code = response.status
            return _answer(code, content, response.headers.get("Retry-After"))
        except (aiohttp.ClientError, OSError) as error:  # time-outs are OSErrors
            reason = str(error) or f"no answer within {seconds:g} s"
            raise ClusterUnavailable(f"{method} {url.partition('?')[0]}: {reason}") from error
        finally:
            if self._on_request is not None:
                self._on_request(method, code, time.monotonic() - began)

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
                configuration = await self._reload_configuration()
            except NoCluster:
                return False
            # Other requests may still use the previous client; those of the one before it are over.
            for client in self._retired:
                await client.close()  # type: ignore[no-untyped-call]
            self._retired = [self._client]
            self._client = self._new_client(configuration)
            return True

    def _new_client(self, configuration: Configuration) -> ApiClient:
        configuration.connection_pool_maxsize = self._in_flight
        # Looking for a proxy takes a thread for each request, twice the request's own work; most users have none.
        configuration.client_session_kwargs = {"trust_env": bool(urllib.request.getproxies())}
        return ApiClient(configuration)


def default_identity() -> str:
    """The name of this machine or pod."""
    return os.environ.get("HOSTNAME") or socket.gethostname()


def own_namespace() -> str | None:
    """The namespace of the pod this process runs in; None outside a cluster."""
    try:
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or None
    except OSError:
        return None


async def find_configuration(kubeconfig: str | None, context: str | None) -> Configuration:
    """The API server's address and our credentials, by the rules of ApiConnection.open. Raises NoCluster."""
    configuration = Configuration()
    named = kubeconfig or os.environ.get("KUBECONFIG")
    try:
        if named is None and context is None and (SERVICE_ACCOUNT / "token").exists():
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            path = named or str(Path.home() / ".kube" / "config")
            # Otherwise the client rewrites the user's file after refreshing some kinds of tokens.
            await load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, context=context, client_configuration=configuration, persist_config=False
            )
    except (ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        raise NoCluster(f"cannot use the cluster's configuration: {error}") from error
    return configuration


def _answer(code: int, content: bytes, retry_after: str | None) -> Answer:
    try:
        body = json.loads(content) if content else {}
    except ValueError:
        body = None
    seconds = float(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    if isinstance(body, dict):
        return Answer(code, body, "", seconds)
    return Answer(code, {}, content.decode(errors="replace"), seconds)
