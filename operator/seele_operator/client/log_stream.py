"""Following the logs of a run: new containers, new attempts and lost connections, until the run is over."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

from seele_operator.client.errors import Missing, NotReady, RemoteError, Silence, Unreachable
from seele_operator.client.log_lines import LogLine, LogPrinter, Position, log_line
from seele_operator.client.pods import Container, Selection, containers, see_pods
from seele_operator.client.runs import SeenRun, looks, plain_line, see
from seele_operator.client.server import LogRange, Server

LOOK_SECONDS = 1.0
RETRY_SECONDS = 2.0
"""Pause after a connection that failed."""
QUIET_SECONDS = 5.0
"""After the end of the run: silence after which containers that still run are left alone."""
WAITING_LINES = 10_000
"""Lines that are read before they can be printed; containers that write faster wait."""
_WHOLE = LogRange(follow=True)
"""Logs that begin later than the command are wanted from their beginning."""


@dataclass
class _Log:
    """The log of one container."""

    label: str
    pod: str
    container: str
    first: LogRange
    position: Position = field(default_factory=Position)
    started: bool = False
    """Whether the container has begun to write."""
    connected: bool = False
    complete: bool = False
    had_ended: bool = False
    """Whether the container was known to have ended when the present connection was made: then it brings all there is."""
    not_before: float = 0.0
    last_note: str = ""


@dataclass(frozen=True)
class _Disconnected:
    log: _Log
    error: RemoteError | None


class LogFollower:
    """One thread a container reads its log; this one looks at the run, prints, and connects."""

    def __init__(
        self,
        server: Server,
        run: SeenRun,
        attempt: int,
        selection: Selection,
        first: LogRange,
        printer: LogPrinter,
    ):
        self._server = server
        self._run = run
        self._attempt = attempt
        self._selection = selection
        self._first = first
        self._printer = printer
        self._logs: dict[tuple[str, str], _Log] = {}
        self._arrived: queue.Queue[tuple[str, LogLine] | _Disconnected] = queue.Queue(WAITING_LINES)
        self._last_line = time.monotonic()

    def follow(self) -> None:
        """Print until the run is over and its logs are at their end. Raises RemoteError where that is not possible."""
        first = self._first
        phase = self._run.status.phase
        for run, parts in looks(self._look, self._printer.note, LOOK_SECONDS, self._print_arrivals):
            if run is not None and run.status.phase != phase:
                self._printer.note(plain_line(run))
                phase = run.status.phase
            for part in parts:
                self._attend(part, first if part.state != "waiting" else _WHOLE)
            self._forget_others({part.key for part in parts})
            first = _WHOLE
            if run is None:
                self._printer.note(f"{self._run.name}: was deleted")
            if (run is None or run.status.terminal) and self._drained():
                return

    def _look(self) -> tuple[SeenRun | None, list[Container]]:
        body = self._server.run(self._run.name)
        seen = None if body is None else see(body)
        if seen is not None and seen.uid != self._run.uid:
            seen = None
        pods = [
            pod
            for pod in see_pods(self._server.pods(self._run.name), self._run.uid)
            if pod.seen.attempt >= self._attempt and self._selection.includes(pod)
        ]
        return seen, [part for pod in pods for part in containers(pod)]

    def _attend(self, part: Container, first: LogRange) -> None:
        """Connect to a container's log, unless that was done; say why it has not started, where it has not."""
        log = self._logs.get(part.key)
        if log is None:
            log = self._logs[part.key] = _Log(part.label, part.pod.seen.name, part.name, first)
            self._printer.expect(part.label)
        if part.pod.seen.attempt > self._attempt:
            self._attempt = part.pod.seen.attempt
            self._printer.note(f"── attempt {self._attempt} ──")
        if part.state == "waiting":
            if part.waits_for:
                self._note(log, f"waits: {part.waits_for}")
        elif not log.connected and not log.complete and time.monotonic() >= log.not_before:
            log.started, log.connected, log.had_ended = True, True, part.state == "ended"
            threading.Thread(target=self._read, args=(log,), name=log.label, daemon=True).start()

    def _forget_others(self, present: set[tuple[str, str]]) -> None:
        """Logs of pods that are gone are at their end, once nothing is under way any more."""
        for key, log in self._logs.items():
            if key not in present and not log.connected:
                log.complete = True

    def _read(self, log: _Log) -> None:
        """In a thread of its own: one connection, from where the last one ended."""
        since = log.position.since_time
        wanted = log.first if since is None else LogRange(follow=True, since_time=since)
        log.position.reconnected()
        error: RemoteError | None = None
        try:
            with self._server.log(log.pod, log.container, wanted) as lines:
                for raw in lines:
                    line = log_line(raw)
                    if log.position.is_new(line):
                        self._arrived.put((log.label, line))
        except RemoteError as raised:
            error = raised
        self._arrived.put(_Disconnected(log, error))

    def _print_arrivals(self, seconds: float) -> None:
        """Print what arrives within so many seconds."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            try:
                arrived = self._arrived.get_nowait()
            except queue.Empty:
                self._printer.flush()
                try:
                    arrived = self._arrived.get(timeout=left)
                except queue.Empty:
                    return
            if isinstance(arrived, _Disconnected):
                self._disconnected(arrived.log, arrived.error)
            else:
                self._printer.line(*arrived)
                self._last_line = time.monotonic()

    def _disconnected(self, log: _Log, error: RemoteError | None) -> None:
        log.connected = False
        log.complete = isinstance(error, Missing) or (error is None and log.had_ended)
        if error is None or isinstance(error, Missing | Silence):
            return
        if not isinstance(error, NotReady | Unreachable):
            raise error
        log.not_before = time.monotonic() + RETRY_SECONDS
        self._note(log, str(error))

    def _note(self, log: _Log, text: str) -> None:
        if text != log.last_note:
            self._printer.note(text, log.label)
            log.last_note = text

    def _drained(self) -> bool:
        """Whether everything that there is was printed."""
        if not self._arrived.empty():
            return False
        unfinished = any(log.connected or (log.started and not log.complete) for log in self._logs.values())
        return not unfinished or time.monotonic() - self._last_line > QUIET_SECONDS
