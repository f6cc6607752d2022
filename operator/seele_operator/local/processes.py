"""Starts and stops the processes of a run so that none of them outlives it."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from seele_operator.local import watchdog
from seele_operator.local.translate import Command

KILLED_EXIT_SECONDS = 10.0
"""How long a killed process may take to disappear; the kernel may be busy freeing its memory."""


class Processes:
    """All processes of one execution of a run. Each container is a session, which is reported to the watchdog."""

    def __init__(self, guard: IO[bytes], mark: str):
        self._guard = guard
        self._mark = mark
        self._sessions: set[int] = set()

    async def start(self, command: Command, log: Path) -> asyncio.subprocess.Process:
        """Start a container and append its output to `log`. Raises OSError if the program does not exist."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command.arguments,
                env={**command.environment, watchdog.MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._report(process.pid)
        return process

    async def end(self, process: asyncio.subprocess.Process, grace: float, at_once: asyncio.Event) -> None:
        """Stop a container and everything that it has started.

        As with a kubelet, only the first process gets SIGTERM, so that it can finish its work with its workers. The rest
        of the session is killed once that process has ended, after `grace` seconds, or as soon as `at_once` is set.
        """
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            await _first_of(process, at_once, grace)
        await self.clear(process)

    async def clear(self, process: asyncio.subprocess.Process) -> None:
        """Kill the remaining processes of a container's session."""
        session = process.pid
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(session, signal.SIGKILL)
        await asyncio.to_thread(watchdog.kill_all, "", {session}, KILLED_EXIT_SECONDS)
        await process.wait()
        self._report(-session)

    async def clear_all(self) -> bool:
        """Kill all remaining processes of this run; False if one could not be killed."""
        return await asyncio.to_thread(watchdog.kill_all, self._mark, set(self._sessions), KILLED_EXIT_SECONDS)

    def _report(self, session: int) -> None:
        if session > 0:
            self._sessions.add(session)
        else:
            self._sessions.discard(-session)
        # Without the watchdog the run still stops its processes itself, except after a SIGKILL.
        with contextlib.suppress(BrokenPipeError):
            self._guard.write(f"{session}\n".encode())
            self._guard.flush()


@contextlib.contextmanager
def guarded(lock: int | None = None) -> Iterator[Processes]:
    """Processes under a watchdog, which keeps the file descriptor `lock` open while it runs."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "seele_operator.local.watchdog", mark],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=() if lock is None else (lock,),
    )
    assert process.stdin is not None
    try:
        yield Processes(process.stdin, mark)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()


async def _first_of(process: asyncio.subprocess.Process, event: asyncio.Event, seconds: float) -> None:
    """Wait until the process has ended, the event is set, or the time is up."""
    waits = {asyncio.ensure_future(process.wait()), asyncio.ensure_future(event.wait())}
    try:
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
