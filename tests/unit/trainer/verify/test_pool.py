"""Answers are checked in processes that can be killed; a failure there is counted and costs one answer."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import psutil
import pytest

from seele_trainer.config import Verifier
from seele_trainer.verify.pool import MAX_BATCH, VerifierPool
from seele_trainer.verify.process import VerifierError, WorkerProcess
from tests.support import REPOSITORY

TOWER = ("so \\boxed{9^{9^{9^{9}}}}", "\\frac{1}{3}")
"""sympy never finishes with this."""


@contextlib.asynccontextmanager
async def running(verifier: Verifier) -> AsyncIterator[VerifierPool]:
    pool = VerifierPool(verifier)
    await pool.start()
    try:
        yield pool
    finally:
        await pool.close()


async def until_gone(pids: list[int], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline, "workers are still running"
        await asyncio.sleep(0.02)


async def test_verdicts_are_in_the_order_of_the_pairs() -> None:
    async with running(Verifier(method="exact")) as pool:
        items = [(f"#### {number}", str(number + number % 3)) for number in range(300)]
        assert await pool.check(items) == [number % 3 == 0 for number in range(300)]
        assert await pool.check([]) == []
        assert (pool.timeouts, pool.crashes) == (0, 0)


async def test_a_check_that_never_ends_is_counted_and_the_others_get_their_verdicts() -> None:
    async with running(Verifier(timeout_seconds=1.5)) as pool:
        before = set(pool.worker_pids)
        halves = [(f"\\boxed{{{number}/2}}", f"\\frac{{{number}}}{{2}}") for number in range(1, 20, 2)]
        verdicts = await pool.check([*halves[:5], TOWER, *halves[5:]])
        assert verdicts == [*[True] * 5, None, *[True] * 5]
        assert (pool.timeouts, pool.crashes) == (1, 0)
        assert await pool.check([("\\boxed{2(n-1)}", "2n-2")]) == [True]
        await until_gone(list(before - set(pool.worker_pids)))


async def test_a_worker_that_dies_costs_one_answer_and_is_replaced() -> None:
    async with running(Verifier(workers=1, timeout_seconds=60)) as pool:
        (pid,) = pool.worker_pids
        checking = asyncio.create_task(pool.check([TOWER, ("\\boxed{1/2}", "\\frac{1}{2}")]))
        busy = psutil.Process(pid)
        used = busy.cpu_times().user
        deadline = time.monotonic() + 20
        while busy.cpu_times().user < used + 0.2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        assert await checking == [None, True]
        assert (pool.timeouts, pool.crashes) == (0, 1)
        assert pool.worker_pids != [pid]


async def test_equal_pairs_are_checked_once() -> None:
    async with running(Verifier(workers=1, timeout_seconds=1.0)) as pool:
        assert await pool.check([TOWER, TOWER, TOWER]) == [None, None, None]
        assert pool.timeouts == 1
        one, two = await asyncio.gather(pool.check([TOWER]), pool.check([TOWER]))
        assert one == two == [None]
        assert pool.timeouts == 2


async def test_a_verdict_is_remembered() -> None:
    async with running(Verifier(method="exact", workers=1)) as pool:
        assert await pool.check([("#### 5", "5")]) == [True]
        os.kill(pool.worker_pids[0], signal.SIGSTOP)
        async with asyncio.timeout(5):
            assert await pool.check([("#### 5", "5")]) == [True]


async def test_a_cancelled_caller_does_not_take_the_verdict_from_another() -> None:
    async with running(Verifier(workers=1, timeout_seconds=1.0)) as pool:
        first = asyncio.create_task(pool.check([TOWER, ("\\boxed{1/2}", "\\frac{1}{2}")]))
        second = asyncio.create_task(pool.check([("\\boxed{1/2}", "\\frac{1}{2}")]))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == [True]
        with pytest.raises(asyncio.CancelledError):
            await first


async def test_the_event_loop_stays_free_while_answers_are_checked() -> None:
    async with running(Verifier(workers=1, timeout_seconds=1.0)) as pool:
        checking = asyncio.create_task(pool.check([TOWER]))
        turns = 0
        while not checking.done():
            turns += 1
            await asyncio.sleep(0.005)
        assert turns > 50


async def test_answers_go_to_the_workers_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    send = WorkerProcess.send

    async def counted(process: WorkerProcess, pairs: Sequence[tuple[str, str]]) -> None:
        sizes.append(len(pairs))
        await send(process, pairs)

    monkeypatch.setattr(WorkerProcess, "send", counted)
    async with running(Verifier(method="exact", workers=2)) as pool:
        assert all(await pool.check([(f"a={number} so\n#### {number}", str(number)) for number in range(512)]))
    assert sum(sizes) == 512
    assert len(sizes) <= 2 * 512 / MAX_BATCH


async def test_closing_ends_the_workers_and_fails_waiting_checks() -> None:
    pool = VerifierPool(Verifier(timeout_seconds=60))
    await pool.start()
    pids = pool.worker_pids
    assert len(pids) == 2
    waiting = asyncio.create_task(pool.check([TOWER]))
    await asyncio.sleep(0)
    await pool.close()
    with pytest.raises(VerifierError, match="closed"):
        await waiting
    await until_gone(pids)
    with pytest.raises(VerifierError):
        await pool.check([("#### 1", "1")])


async def test_checking_before_the_start_is_an_error() -> None:
    with pytest.raises(VerifierError, match=r"await start\(\) first"):
        await VerifierPool(Verifier()).check([("#### 1", "1")])


async def test_workers_that_cannot_start_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(VerifierError, match=r"did not start \(exit status 1\)"):
        await VerifierPool(Verifier()).start()


PARENT = """
import asyncio, sys
from seele_trainer.config import Verifier
from seele_trainer.verify.pool import VerifierPool

async def main():
    pool = VerifierPool(Verifier(timeout_seconds=600))
    await pool.start()
    print(*pool.worker_pids, flush=True)
    await pool.check([(sys.argv[1], sys.argv[2])])

asyncio.run(main())
"""


async def test_workers_die_with_a_parent_that_is_killed_even_in_the_middle_of_a_check() -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "trainer")}
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, *TOWER, stdout=asyncio.subprocess.PIPE, env=environment
    )
    assert parent.stdout is not None
    pids = [int(pid) for pid in (await parent.stdout.readline()).split()]
    assert len(pids) == 2
    parent.kill()
    await parent.wait()
    await until_gone(pids)


async def test_workers_do_not_load_torch() -> None:
    async with running(Verifier()) as pool:
        for pid in pool.worker_pids:
            files = {Path(mapped.path).name for mapped in psutil.Process(pid).memory_maps()}
            assert not any(name.startswith("libtorch") for name in files)
            assert psutil.Process(pid).memory_info().rss < 150e6
