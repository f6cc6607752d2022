"""A lean asynchronous client of the API server, so that the benchmark is not slower than what it measures."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import yaml

from seele_operator.plan.names import ATTEMPT_LABEL, RUN_LABEL

Body = dict[str, Any]

RUNS = "apis/seele.dev/v1alpha1"
METADATA_ONLY = "application/json;as={};v=v1;g=meta.k8s.io"
"""Answers without spec and status, which are read faster; the labels of a pod are enough."""
WATCH_SECONDS = 3600
MAX_LINE_BYTES = 2**22


class ApiFailure(Exception):
    """The API server refused a request; `code` is the HTTP status."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Api:
    """Requests with the credentials of a kubeconfig file."""

    def __init__(self, kubeconfig: Path, in_flight: int = 32) -> None:
        found = yaml.safe_load(kubeconfig.read_text())
        cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]
        self._url = cluster["server"]
        self._headers = {"Authorization": f"Bearer {user['token']}"}
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._in_flight = in_flight
        self._slots = asyncio.Semaphore(in_flight)

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=self._in_flight + 8)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
        self._session = aiohttp.ClientSession(
            connector=connector, headers=self._headers, timeout=timeout, read_bufsize=MAX_LINE_BYTES
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Body:
        """One request. Raises ApiFailure."""
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": content_type}
        async with (
            self._slots,
            self._session.request(method, f"{self._url}/{path}", data=data, headers=headers, params=query) as response,
        ):
            content = await response.read()
            if response.status >= 400:
                raise ApiFailure(response.status, content.decode(errors="replace"))
            answer: Body = json.loads(content)
            return answer

    async def pods(self) -> AsyncIterator[tuple[str, Body]]:
        """Endless stream of changes to the pods of runs: (ADDED, MODIFIED or DELETED, metadata)."""
        selector, path = {"labelSelector": RUN_LABEL}, f"{self._url}/api/v1/pods"
        listing = {"Accept": METADATA_ONLY.format("PartialObjectMetadataList")}
        async with self._session.get(path, params=selector, headers=listing) as response:
            listed = json.loads(await response.read())
        for item in listed["items"] or ():
            yield "ADDED", item["metadata"]
        version = listed["metadata"]["resourceVersion"]
        watching = {"Accept": METADATA_ONLY.format("PartialObjectMetadata")}
        while True:
            query = {**selector, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(WATCH_SECONDS)}
            async with self._session.get(path, params=query, headers=watching) as response:
                async for line in response.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise ApiFailure(int(event["object"]["code"]), str(event["object"]["message"]))
                    version = event["object"]["metadata"]["resourceVersion"]
                    yield event["type"], event["object"]["metadata"]


class PodSeen(NamedTuple):
    """A pod, and when it was first seen."""

    run: str
    attempt: int
    moment: float


class PodWatch:
    """The pods that exist, according to a watch."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._news = asyncio.Event()
        self.pods: dict[str, PodSeen] = {}
        """By uid."""
        self.by_run: dict[str, set[str]] = {}
        """Uids by the run's name."""

    async def follow(self) -> None:
        """Listen until cancelled."""
        async for kind, metadata in self._api.pods():
            uid, run = metadata["uid"], metadata["labels"][RUN_LABEL]
            if kind == "DELETED":
                self.pods.pop(uid, None)
                self.by_run.get(run, set()).discard(uid)
            elif uid not in self.pods:
                self.pods[uid] = PodSeen(run, int(metadata["labels"][ATTEMPT_LABEL]), time.monotonic())
                self.by_run.setdefault(run, set()).add(uid)
            self._news.set()

    def of(self, run: str) -> list[PodSeen]:
        """The pods of one run."""
        return [self.pods[uid] for uid in self.by_run.get(run, ())]

    async def until(self, reached: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a condition on the pods. Raises TimeoutError, with `what` was awaited."""
        try:
            async with asyncio.timeout(seconds):
                while not reached():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError as error:
            raise TimeoutError(f"not within {seconds:g} s: {what}") from error
