"""A process that kills what a run has started once the runner is gone, even after a SIGKILL.

It reads session ids from its standard input, which the runner holds open: the end of the file means that the runner is
gone. Then it kills every process that belongs to one of those sessions, descends from one, or has the run's mark in its
environment, as a process has that was started just before the runner could report it. It also inherits the lock of the
run's folder, so that the run cannot be started again before those processes are gone.
"""

import os
import signal
import sys
import time
from collections.abc import Iterable

import psutil

MARK = "SEELE_LOCAL_RUN"
"""Environment variable of every process of a run; the value is unique to one execution."""
PATIENCE_SECONDS = 30.0
PAUSE_SECONDS = 0.05


def belonging(mark: str, sessions: Iterable[int]) -> list[psutil.Process]:
    """Running processes of the sessions, their descendants, and those with the mark; never the caller itself."""
    known = set(sessions)
    mine = os.getpid()
    parents: dict[int, int] = {}
    alive: dict[int, psutil.Process] = {}
    found: set[int] = set()
    for process in psutil.process_iter():
        try:
            if process.pid == mine or process.status() == psutil.STATUS_ZOMBIE:
                continue
            alive[process.pid] = process
            parents[process.pid] = process.ppid()
            # A process that renames itself overwrites its environment, so the mark alone would miss vLLM's children.
            if os.getsid(process.pid) in known or process.environ().get(MARK) == mark:
                found.add(process.pid)
        except (psutil.Error, OSError):
            # Gone by now, or another user's.
            continue
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return [alive[pid] for pid in found]


def kill_all(mark: str, sessions: Iterable[int], patience: float = PATIENCE_SECONDS) -> bool:
    """Kill the processes of a run until none is left; False if `patience` seconds were not enough."""
    sessions = set(sessions)
    deadline = time.monotonic() + patience
    while left := belonging(mark, sessions):
        if time.monotonic() > deadline:
            return False
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        psutil.wait_procs(left, timeout=PAUSE_SECONDS)
    return True


def main(mark: str) -> None:
    """Collect session ids until the runner is gone, then kill."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sessions: set[int] = set()
    for line in sys.stdin:
        session = int(line)
        if session > 0:
            sessions.add(session)
        else:
            sessions.discard(-session)
    kill_all(mark, sessions)


if __name__ == "__main__":
    main(sys.argv[1])
