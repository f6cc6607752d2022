"""While the API server does not answer, all workers pause and a single probe waits for it to come back."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable

from seele_operator.kube.errors import ClusterError, ClusterUnavailable, NotLeading

FIRST_PROBE_SECONDS = 0.2
MAX_PROBE_INTERVAL_SECONDS = 5.0
"""The API server is probed at least this often, so that runs do not wait long after an outage."""

_log = logging.getLogger(__name__)


class Gate:
    """Open while the API server answers and this operator may write."""

    def __init__(
        self,
        probe: Callable[[], Awaitable[None]],
        *,
        on_return: Callable[[], None] = lambda: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`probe` sends the API server a cheap request; `on_return` is called after each outage."""
        self._probe = probe
        self._on_return = on_return
        self._jitter = jitter
        self._passable = asyncio.Event()
        self._passable.set()
        self._probing: asyncio.Task[None] | None = None

    @property
    def open(self) -> bool:
        """Whether workers may continue."""
        return self._passable.is_set()

    async def passable(self) -> None:
        """Wait until the gate is open."""
        await self._passable.wait()

    def close(self, reason: ClusterError) -> None:
        """Hold all workers until a probe succeeds. The first follows soon, or after the API server's Retry-After."""
        if self.open:
            self._passable.clear()
            self._probing = asyncio.create_task(self._until_back(reason), name="probe of the API server")

    async def leave_open(self) -> None:
        """Stop probing and let all workers pass, because the operator is stopping."""
        self._passable.set()
        if self._probing is not None:
            self._probing.cancel()
            await asyncio.gather(self._probing, return_exceptions=True)

    async def _until_back(self, reason: ClusterError) -> None:
        closed = time.monotonic()
        reported = False
        delay = FIRST_PROBE_SECONDS
        retry_after = getattr(reason, "retry_after", None) or 0.0
        while True:
            # Jitter, so that several operators do not all return at the same moment.
            await asyncio.sleep(max(retry_after, delay * (0.5 + self._jitter() / 2)))
            try:
                await self._probe()
                break
            except (ClusterUnavailable, NotLeading) as error:
                # Logged only now: a single failed request is not an outage.
                if not reported:
                    _log.warning("API server lost: %s; waiting and trying again", error)
                    reported = True
                retry_after = getattr(error, "retry_after", None) or 0.0
            except ClusterError:
                break  # any answer will do
            except Exception:  # noqa: BLE001 - if this task ended, the operator would stall silently
                _log.exception("the API server cannot be probed")
                reported, retry_after = True, 0.0
            delay = min(2 * delay, MAX_PROBE_INTERVAL_SECONDS)
        if reported:
            _log.info("API server is back after %.0f s", time.monotonic() - closed)
            self._on_return()
        self._passable.set()
