"""Leader election by a Lease: of several operators on the same runs, one writes and the others wait."""

from __future__ import annotations

import asyncio


class Leadership:
    """One candidate for the lease. `await acquire()`, work while `valid()`, stop when `lost` is set, `await release()`.

    An unreachable API server makes `valid()` False in time but does not set `lost`: when the server is back and nobody
    took the lease, the work goes on.
    """

    lost: asyncio.Event
    """Set when another candidate was seen to hold the lease after this one did."""

    async def acquire(self) -> None:
        """Wait until this candidate holds the lease; from then on it is renewed in a task of its own."""
        raise NotImplementedError

    def valid(self) -> bool:
        """Whether nobody else can hold the lease right now; to be asked before every write."""
        raise NotImplementedError

    async def release(self) -> None:
        """Stop renewing, and give the lease up so that another candidate can have it at once."""
        raise NotImplementedError
