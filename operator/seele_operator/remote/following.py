"""Following a run from one look to the next, over times in which the API server does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from seele_operator.remote.errors import Unreachable
from seele_operator.remote.run_detail import NO_OPERATOR, UNTAKEN_SECONDS
from seele_operator.remote.runs_table import step_text
from seele_operator.remote.seen_run import SeenRun, see
from seele_operator.remote.server import Server

LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
"""How long an API server that does not answer is waited for, once it has answered."""

Say = Callable[[str], None]
T = TypeVar("T")


def looks(
    look: Callable[[], T], say: Say, every: float | None = None, pause: Callable[[float], None] = time.sleep
) -> Iterator[T]:
    """`look()` now and after every pause of so many seconds. Raises Unreachable where the server is silent for too long."""
    answered = False
    silent_since: float | None = None
    while True:
        try:
            seen = look()
        except Unreachable as error:
            if not answered or (silent_since is not None and time.monotonic() - silent_since > PATIENCE_SECONDS):
                raise
            if silent_since is None:
                say(f"{error}; trying on")
                silent_since = time.monotonic()
        else:
            if silent_since is not None:
                say("the API server answers again")
            answered, silent_since = True, None
            yield seen
        pause(LOOK_SECONDS if every is None else every)


def follow_run(server: Server, run: SeenRun, say: Say) -> Iterator[SeenRun | None]:
    """This very run again and again; None, as the last, when it is gone."""

    def look() -> SeenRun | None:
        body = server.run(run.name)
        seen = None if body is None else see(body)
        return seen if seen is not None and seen.uid == run.uid else None

    for seen in looks(look, say):
        yield seen
        if seen is None:
            return


def wait_until(server: Server, run: SeenRun, say: Say, reached: Callable[[SeenRun], bool]) -> SeenRun | None:
    """Say what becomes of a run until it is what is waited for; None where it is gone before."""
    last = ""
    started = time.monotonic()
    for seen in follow_run(server, run, say):
        if seen is None:
            return None
        late = not seen.taken_up and time.monotonic() - started > UNTAKEN_SECONDS
        line = f"{seen.name}: {NO_OPERATOR}" if late else plain_line(seen)
        if line != last:
            say(line)
            last = line
        if reached(seen):
            return seen
    return None


def plain_line(run: SeenRun) -> str:
    """Where a run stands, in one line."""
    status = run.status
    if not run.taken_up:
        return f"{run.name}: not taken up yet"
    parts = [f"{run.name}: {status.phase}"]
    if status.step is not None:
        parts.append(f"step {step_text(run)}")
    if status.reward is not None:
        parts.append(f"reward {status.reward:.2f}")
    if status.accuracy is not None:
        parts.append(f"accuracy {status.accuracy:.1%}")
    if status.phase != "Running" and status.message:
        parts.append(" ".join(status.message.split()))
    return "  ".join(parts)
