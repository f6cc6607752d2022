"""vLLM's own metrics, passed on by the trainer because Prometheus cannot reach the servers.

The run's NetworkPolicy lets only trainers reach the rollout servers, whose control routes can load weights. So the driver
queries the servers when it is scraped; concurrent scrapes share one answer.
"""

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
"""Time limit for all servers together: they are queried at once, and a scrape usually has ten seconds."""
SHARED_SECONDS = 3.0
"""How long an answer is shared: less than any usual scrape interval, so that Prometheus never gets the same one twice."""
MAX_ANSWER_BYTES = 8 * 2**20
"""Size of the largest accepted answer; vLLM's has about 200 kB."""
PREFIX = "vllm:"


class SharedAnswer:
    """An answer that is costly to fetch, shared by any number of threads.

    One thread fetches at a time. Its answer serves all requests made during the fetch or within `seconds` of its start.
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
        """The answer. Blocks while it is being fetched."""
        requested = self._clock()
        with self._lock:
            if requested >= self._serves_until:
                began = self._clock()
                self._answer = self._fetch()
                # Requests that waited for a slow fetch are served too.
                self._serves_until = max(began + self._seconds, self._clock())
            return self._answer


class RolloutFamilies(Collector):
    """The metrics of several servers, with the label `server` for the position of each in the list."""

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
    """vLLM's own families in a server's answer. Raises ValueError if the text is not in Prometheus' format.

    Families of the Python process and the web server are skipped, and so are creation times.
    """
    wanted = (f"# HELP {PREFIX}", f"# TYPE {PREFIX}", PREFIX)
    # Filtered before parsing, which is the most expensive part.
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    parsed = text_string_to_metric_families("\n".join(lines) + "\n")
    return [family for family in parsed if not family.name.endswith("_created")]


def collect(servers: Sequence[RolloutServer], seconds: float = ANSWER_SECONDS) -> RolloutFamilies:
    """Query the servers that are in use, all at once; those that do not answer in time are skipped.

    Blocks for at most `seconds`: call it in a separate thread, never on the training loop.
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
                if len(body) > MAX_ANSWER_BYTES:
                    raise aiohttp.ClientPayloadError(f"it has more than {MAX_ANSWER_BYTES} bytes")
    except (aiohttp.ClientError, OSError) as error:
        logger.debug("%s/metrics is skipped: %s", url, error or type(error).__name__)
        return None
    return body.decode(errors="replace")
