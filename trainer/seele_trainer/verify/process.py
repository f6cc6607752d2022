"""A worker process of the pool: start it, send it pairs, read verdicts, kill it."""

import asyncio
import contextlib
import json
import math
import os
import sys
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from seele_trainer.termination import ExpectedFailure
from seele_trainer.verify.check import Method

START_TIMEOUT_SECONDS = 120.0
"""Time limit for a worker to start; it takes half a second on an idle machine."""

GRACE_SECONDS = 0.1
"""Extra time for a verdict that may be in the pipe already if the event loop was delayed past the limit."""

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]


class VerifierError(ExpectedFailure):
    """The verifier cannot work at all: its workers do not start. The message says where to look."""


class WorkerTimedOut(Exception):
    """A check exceeded its time limit."""


class WorkerDied(Exception):
    """The process ended during a check."""


class WorkerProcess:
    """A child process that runs `seele_trainer.verify.worker`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._process = process
        self._input = process.stdin
        self._output = process.stdout
        self._lines: deque[bytes] = deque()
        self._incomplete = b""

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @classmethod
    async def start(cls, method: Method) -> Self:
        """Start a worker and wait until it is ready. Raises VerifierError if it is not ready in time."""
        path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "seele_trainer.verify.worker",
            method,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        worker = cls(process)
        try:
            await worker._read(START_TIMEOUT_SECONDS)
        except (WorkerTimedOut, WorkerDied) as error:
            await worker.kill()
            raise VerifierError(
                f"a verifier worker did not start (exit status {process.returncode}): the log above has its error; "
                "is the trainer extra installed (math-verify)?"
            ) from error
        except asyncio.CancelledError:
            await worker.kill()
            raise
        return worker

    async def send(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Send pairs to check; their verdicts are read one by one."""
        self._input.write(json.dumps(pairs).encode() + b"\n")
        # A dead process is detected when its verdict is read.
        with contextlib.suppress(ConnectionError):
            await self._input.drain()

    async def verdict(self, timeout: float) -> bool | None:
        """The next verdict; None if the check raised an error. Raises WorkerTimedOut or WorkerDied."""
        verdict = await self._read(timeout)
        return verdict if isinstance(verdict, bool) else None

    async def kill(self) -> None:
        """Kill the process and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._input.close()
        await self._process.wait()
        # asyncio closes the pipe at its end.
        await self._output.read()

    async def _read(self, timeout: float) -> object:
        while not self._lines:
            try:
                received = await self._received(timeout)
            except TimeoutError:
                try:
                    received = await self._received(GRACE_SECONDS)
                except TimeoutError:
                    raise WorkerTimedOut from None
            if not received:
                raise WorkerDied
            *complete, self._incomplete = (self._incomplete + received).split(b"\n")
            self._lines.extend(complete)
        value: object = json.loads(self._lines.popleft())
        return value

    async def _received(self, timeout: float) -> bytes:
        # Many verdicts at a time: a time limit around each line would cost more than a simple check.
        async with asyncio.timeout(timeout):
            return await self._output.read(1 << 16)


CGROUPS = Path("/sys/fs/cgroup")


def available_cores(cgroups: Path = CGROUPS) -> int:
    """Cores that this process may run on, limited by the quota of its container; at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(cgroups)
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota(cgroups: Path) -> float | None:
    """Cores that the container's limit amounts to; None without a limit or without control groups (v2, then v1)."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((cgroups / file).read_text() for file in files).split()
            return int(quota) / int(period) if quota not in ("max", "-1") else None
        except (OSError, ValueError, ZeroDivisionError):
            continue
    return None
