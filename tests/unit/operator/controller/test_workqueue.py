"""Keys wait once, come when it is their time, and are never with two workers."""

from __future__ import annotations

import asyncio

import pytest

from seele_operator.controller.workqueue import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, WorkQueue, work

pytestmark = pytest.mark.unit


def queue(jitter: float = 1.0) -> WorkQueue[str]:
    return WorkQueue(jitter=lambda: jitter)


async def drained(line: WorkQueue[str]) -> list[str]:
    """All keys that can be had right now."""
    found = []
    while len(line):
        key = await line.get()
        assert key is not None
        found.append(key)
    return found


async def test_a_key_that_waits_is_kept_once_and_in_order() -> None:
    line = queue()
    for key in ("a", "b", "a", "c", "b"):
        line.add(key)
    assert await drained(line) == ["a", "b", "c"]


async def test_a_key_that_is_added_while_it_is_worked_on_comes_again_but_only_afterwards() -> None:
    line = queue()
    line.add("a")
    assert await line.get() == "a"
    line.add("a")
    line.add("a")
    assert len(line) == 0
    line.done("a")
    assert await drained(line) == ["a"]


async def test_no_two_workers_have_the_same_key() -> None:
    line = queue()
    at_work: set[str] = set()
    times: dict[str, int] = {}

    async def handle(key: str) -> None:
        assert key not in at_work
        at_work.add(key)
        await asyncio.sleep(0)
        times[key] = times.get(key, 0) + 1
        if times[key] < 20:
            line.add(key)
        await asyncio.sleep(0)
        at_work.discard(key)
        if all(times.get(key) == 20 for key in "abc"):
            line.close()

    async def ready() -> None:
        return

    for key in "abc":
        line.add(key)
    async with asyncio.timeout(10):
        await asyncio.gather(*(work(line, handle, ready) for _ in range(8)))
    assert times == {"a": 20, "b": 20, "c": 20}


async def test_the_earlier_of_two_delays_counts() -> None:
    line = queue()
    line.add_after("a", 3600)
    line.add_after("a", 0.01)
    line.add_after("a", 1800)
    async with asyncio.timeout(5):
        assert await line.get() == "a"


async def test_a_delay_that_is_over_is_no_delay() -> None:
    line = queue()
    line.add_after("a", 0)
    assert len(line) == 1


async def test_delays_between_tries_grow_up_to_a_limit_and_begin_anew_after_success() -> None:
    line = queue()
    delays = [line.retry("a") for _ in range(12)]
    assert delays[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert delays[-1] == LONGEST_RETRY_SECONDS
    assert line.retry("b") == FIRST_RETRY_SECONDS
    line.succeeded("a")
    assert line.retry("a") == FIRST_RETRY_SECONDS


async def test_a_server_that_asks_for_more_time_gets_it() -> None:
    assert queue().retry("a", at_least=7) == 7


async def test_jitter_shortens_a_delay_by_half_at_most() -> None:
    assert queue(jitter=0.0).retry("a") == FIRST_RETRY_SECONDS / 2


async def test_a_forgotten_key_does_not_come_back() -> None:
    line = queue()
    line.add_after("a", 0.01)
    line.forget("a")
    line.add_after("b", 0.03)
    async with asyncio.timeout(5):
        assert await line.get() == "b"


async def test_a_closed_queue_sends_all_workers_home_without_the_keys_in_line() -> None:
    line = queue()
    handled = []

    async def handle(key: str) -> None:
        handled.append(key)

    async def ready() -> None:
        return

    workers = [asyncio.create_task(work(line, handle, ready)) for _ in range(3)]
    await asyncio.sleep(0)
    line.add("a")
    line.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*workers)
    assert handled == []


async def test_ages_are_those_of_the_first_in_line_and_of_the_slowest_pass() -> None:
    line = queue()
    assert line.longest_wait() == line.longest_work() == 0.0
    line.add("a")
    await asyncio.sleep(0.02)
    line.add("b")
    assert line.longest_wait() >= 0.02
    await line.get()
    assert line.longest_wait() < 0.02
    assert line.working == 1
    await asyncio.sleep(0.02)
    assert line.longest_work() >= 0.02
    line.done("a")
    assert line.longest_work() == 0.0
