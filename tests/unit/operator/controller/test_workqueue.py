"""Keys are queued once, delayed as requested, and never handled by two workers at once."""

import asyncio

import pytest

from seele_operator.controller.workqueue import FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS, WorkQueue, work


def queue(jitter: float = 1.0) -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: jitter)


async def ready() -> None:
    """A gate that is open."""


async def drained(keys: WorkQueue[str]) -> list[str]:
    """All keys that are ready now."""
    found = []
    while len(keys):
        key = await keys.get()
        assert key is not None
        found.append(key)
    return found


async def test_a_waiting_key_is_queued_once_and_in_order() -> None:
    keys = queue()
    for key in ("a", "b", "a", "c", "b"):
        keys.add(key)
    assert await drained(keys) == ["a", "b", "c"]


async def test_a_key_added_while_it_is_handled_is_handled_again_afterwards() -> None:
    keys = queue()
    keys.add("a")
    assert await keys.get() == "a"
    keys.add("a")
    keys.add("a")
    assert len(keys) == 0
    keys.done("a")
    assert await drained(keys) == ["a"]


async def test_no_two_workers_have_the_same_key() -> None:
    keys = queue()
    at_work: set[str] = set()
    times: dict[str, int] = {}

    async def handle(key: str) -> None:
        assert key not in at_work
        at_work.add(key)
        await asyncio.sleep(0)
        times[key] = times.get(key, 0) + 1
        if times[key] < 20:
            keys.add(key)
        await asyncio.sleep(0)
        at_work.discard(key)
        if all(times.get(key) == 20 for key in "abc"):
            keys.close()

    for key in "abc":
        keys.add(key)
    async with asyncio.timeout(10):
        await asyncio.gather(*(work(keys, handle, ready) for _ in range(8)))
    assert times == {"a": 20, "b": 20, "c": 20}


async def test_the_earlier_of_two_delays_counts() -> None:
    keys = queue()
    keys.add_after("a", 3600)
    keys.add_after("a", 0.01)
    keys.add_after("a", 1800)
    async with asyncio.timeout(5):
        assert await keys.get() == "a"


async def test_a_delay_of_zero_queues_at_once() -> None:
    keys = queue()
    keys.add_after("a", 0)
    assert len(keys) == 1


async def test_retry_delays_grow_to_a_limit_and_start_again_after_success() -> None:
    keys = queue()
    delays = [keys.retry("a") for _ in range(12)]
    assert delays[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert delays[-1] == MAX_RETRY_SECONDS
    assert keys.retry("b") == FIRST_RETRY_SECONDS
    keys.succeeded("a")
    assert keys.retry("a") == FIRST_RETRY_SECONDS


async def test_a_retry_waits_at_least_as_long_as_requested() -> None:
    assert queue().retry("a", at_least=7) == 7


async def test_jitter_shortens_a_delay_by_half_at_most() -> None:
    assert queue(jitter=0.0).retry("a") == FIRST_RETRY_SECONDS / 2


async def test_a_forgotten_key_does_not_come_back() -> None:
    keys = queue()
    keys.add_after("a", 0.01)
    keys.forget("a")
    keys.add_after("b", 0.03)
    async with asyncio.timeout(5):
        assert await keys.get() == "b"


async def test_a_closed_queue_ends_all_workers_without_the_waiting_keys() -> None:
    keys = queue()
    handled = []

    async def handle(key: str) -> None:
        handled.append(key)

    workers = [asyncio.create_task(work(keys, handle, ready)) for _ in range(3)]
    await asyncio.sleep(0)
    keys.add("a")
    keys.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*workers)
    assert handled == []


async def test_ages_are_those_of_the_first_waiting_key_and_the_slowest_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    keys, now = queue(), 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    assert keys.longest_wait() == keys.longest_work() == 0.0
    keys.add("a")
    now = 120.0
    keys.add("b")
    assert keys.longest_wait() == 20.0
    await keys.get()
    now = 125.0
    assert (keys.longest_wait(), keys.longest_work()) == (5.0, 5.0)
    keys.done("a")
    assert keys.longest_work() == 0.0
