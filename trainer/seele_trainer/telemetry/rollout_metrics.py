"""vLLM's own metrics, passed on by the trainer: Prometheus cannot reach the servers themselves.

The run's NetworkPolicy lets only trainers reach the rollout servers, whose control routes can load weights. So the driver
asks them on behalf of whoever scrapes it, and only then; and not anew for each of many.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import aiohttp
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from seele_trainer.rollout.protocol import RolloutServer

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 8.0
"""Time limit for all servers together: they are asked at once, and a scrape usually has ten seconds."""
SHARED_SECONDS = 3.0
"""How long an answer serves others. Less than any usual scrape interval, so that a Prometheus never sees its last one again."""
LONGEST_ANSWER = 8 * 2**20
"""Bytes read of an answer; vLLM's has some 200 kB."""
PREFIX = "vllm:"


class SharedAnswer:
    """An answer that is costly to fetch, for any number of threads that ask.

    Only one fetches at a time. It serves all who ask while that takes, and all who ask within `seconds` of its start.
    """

    def __init__(
        self,
        fetch: Callable[[], bytes],
        seconds: float = SHARED_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._answer = b""
        self._serves_until = float("-inf")

    def get(self) -> bytes:
        """The answer. Blocks while somebody fetches it."""
        asked = self._clock()
        with self._lock:
            if asked >= self._serves_until:
                began = self._clock()
                self._answer = self._fetch()
                # Who has waited for a slow one is served too.
                self._serves_until = max(began + self._seconds, self._clock())
            return self._answer


class RolloutFamilies(Collector):
    """The metrics of several servers under one roof, with the label `server` for the place of each in the list."""

    def __init__(self, answers: Mapping[int, str]) -> None:
        self._families: dict[str, Metric] = {}
        for place, text in answers.items():
            try:
                for family in families_of(text):
                    self._take_in(place, family)
            except ValueError as error:
                logger.debug("the metrics of rollout server %d cannot be read: %s", place, error)

    def collect(self) -> Iterable[Metric]:
        """Every family once, with the samples of all servers."""
        return list(self._families.values())

    def _take_in(self, place: int, family: Metric) -> None:
        merged = self._families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        for sample in family.samples:
            labels = {**sample.labels, "server": str(place)}
            merged.samples.append(Sample(sample.name, labels, sample.value))


def families_of(text: str) -> list[Metric]:
    """vLLM's own families in a server's answer. Raises ValueError for what is no text of metrics.

    Left out: those of the Python process and of the web server, and the time at which each series was created.
    """
    wanted = (f"# HELP {PREFIX}", f"# TYPE {PREFIX}", PREFIX)
    # Before parsing, which costs more than all the rest.
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    parsed = text_string_to_metric_families("\n".join(lines) + "\n")
    return [family for family in parsed if not family.name.endswith("_created")]


def collect(servers: Sequence[RolloutServer], seconds: float = ANSWER_SECONDS) -> RolloutFamilies:
    """Ask the servers that are in use, all at once; one that does not answer in time is left out.

    Blocks for at most `seconds`: to be called in a thread of its own, never on the loop that trains.
    """
    ready = {place: server.url for place, server in enumerate(servers) if server.state == "ready"}
    return RolloutFamilies(asyncio.run(_ask_all(ready, seconds)) if ready else {})


async def _ask_all(urls: Mapping[int, str], seconds: float) -> dict[int, str]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds)) as session:
        answers = await asyncio.gather(*(_ask(session, url) for url in urls.values()))
    return {place: answer for place, answer in zip(urls, answers, strict=True) if answer is not None}


async def _ask(session: aiohttp.ClientSession, url: str) -> str | None:
    body = bytearray()
    try:
        async with session.get(f"{url}/metrics", allow_redirects=False, raise_for_status=True) as response:
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LONGEST_ANSWER:
                    raise aiohttp.ClientPayloadError(f"it has more than {LONGEST_ANSWER} bytes")
    except (aiohttp.ClientError, OSError) as error:
        logger.debug("%s/metrics is of no use: %s", url, error or type(error).__name__)
        return None
    return body.decode(errors="replace")
