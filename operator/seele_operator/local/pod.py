"""The life cycle of one pod on this machine: init containers, main container, probes, termination."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import aiohttp

from seele_operator.local.processes import Processes
from seele_operator.local.translate import Command, LocalPod, Probe


@dataclass(frozen=True)
class Verdict:
    """The state of a probe: consecutive answers, and whether the container passes."""

    passing: bool
    successes: int = 0
    failures: int = 0

    def after(self, success: bool, probe: Probe) -> "Verdict":
        """The state after one more answer."""
        if success:
            successes = self.successes + 1
            return Verdict(self.passing or successes >= probe.success_threshold, successes, 0)
        failures = self.failures + 1
        return replace(
            self, passing=self.passing and failures < probe.failure_threshold, successes=0, failures=failures
        )

    def exhausted(self, probe: Probe) -> bool:
        """Whether the failure threshold is reached."""
        return self.failures >= probe.failure_threshold


HUNG_GRACE_SECONDS = 5.0
"""Grace period of a container that fails its probes."""

NOT_FOUND = 127
"""Exit code of a container whose program cannot be executed, as in a shell."""


class PodState(StrEnum):
    """The state of a pod, in the words shown to the user."""

    WAITING = "waiting"
    PREPARING = "preparing"
    STARTING = "starting"
    READY = "ready"
    UNREADY = "not answering"
    RESTARTING = "restarting"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Exit:
    """How a pod ended: the exit code of its last container (128 + the number of a signal), and the reason in words."""

    code: int
    reason: str
    was_ready: bool
    ready_seconds: float = 0.0
    """Seconds since it was ready for the first time; 0 if it never was."""


class PodLife:
    """One pod. `live` runs it once, from its first init container to its end, and may be called repeatedly."""

    def __init__(
        self,
        pod: LocalPod,
        processes: Processes,
        http: aiohttp.ClientSession,
        log: Path,
        observe: Callable[[LocalPod, PodState, str], None],
    ):
        self.pod = pod
        self.log = log
        self.log_began = 0
        """Size of the log, in bytes, when `live` was last called: what follows is about this life."""
        self._processes = processes
        self._http = http
        self._observe = observe
        self._current: asyncio.subprocess.Process | None = None
        self._was_ready = False
        self._ready_since = 0.0
        self._hung = ""

    async def live(self) -> Exit:
        """Run the pod until one of its containers fails or the main one ends."""
        self._was_ready, self._hung = False, ""
        self.log_began = self.log.stat().st_size if self.log.exists() else 0
        for command in self.pod.init:
            self.show(PodState.PREPARING, command.container)
            if (exit := await self._run(command, "init container")).code != 0:
                return exit
        self.show(PodState.STARTING)
        return await self._run(self.pod.main, "container", watched=True)

    async def end(self, grace: float, at_once: asyncio.Event) -> None:
        """Stop what is running, with SIGKILL after `grace` seconds or once `at_once` is set."""
        if self._current is not None:
            await self._processes.end(self._current, grace, at_once)
            self._current = None

    def show(self, state: PodState, detail: str = "") -> None:
        """Report the state of the pod."""
        self._observe(self.pod, state, detail)

    async def _run(self, command: Command, kind: str, watched: bool = False) -> Exit:
        """Run one container until it has ended and all its processes are gone."""
        what = f"{kind} {command.container!r}"
        try:
            self._current = process = await self._processes.start(command, self.log)
        except OSError as error:
            return Exit(NOT_FOUND, f"{what} cannot be started: {command.arguments[0]}: {error.strerror}", False)
        watching = asyncio.create_task(self._watch(process)) if watched else None
        try:
            code = await process.wait()
        finally:
            if watching is not None:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
        await self._processes.clear(process)
        self._current = None
        words = f"{what} {self._hung or _how_it_ended(code)}"
        served = time.monotonic() - self._ready_since if self._was_ready else 0.0
        return Exit(128 - code if code < 0 else code, words, self._was_ready, served)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Probe the container while it runs; stop it if it does not start, or hangs."""
        if self.pod.startup is not None and not await self._started(self.pod.startup):
            probe = self.pod.startup
            self._hung = (
                f"did not answer {probe.url} within {probe.period * probe.failure_threshold:.0f} s of its start"
            )
            await self._stop_hung(process)
            return
        async with asyncio.TaskGroup() as probes:
            probes.create_task(self._watch_readiness())
            if self.pod.liveness is not None:
                probes.create_task(self._watch_liveness(process, self.pod.liveness))

    async def _started(self, probe: Probe) -> bool:
        verdict = Verdict(passing=False)
        await asyncio.sleep(probe.delay)
        while not verdict.exhausted(probe):
            verdict = verdict.after(await self._ask(probe), probe)
            if verdict.passing:
                return True
            await asyncio.sleep(probe.period)
        return False

    async def _watch_readiness(self) -> None:
        probe = self.pod.readiness
        if probe is None:
            self._ready(True)
            return
        await asyncio.sleep(probe.delay)
        verdict = Verdict(passing=False)
        while True:
            before, verdict = verdict, verdict.after(await self._ask(probe), probe)
            if verdict.passing != before.passing:
                self._ready(verdict.passing)
            await asyncio.sleep(probe.period)

    async def _watch_liveness(self, process: asyncio.subprocess.Process, probe: Probe) -> None:
        verdict = Verdict(passing=True)
        await asyncio.sleep(probe.delay)
        while not verdict.exhausted(probe):
            await asyncio.sleep(probe.period)
            verdict = verdict.after(await self._ask(probe), probe)
        self._hung = f"hung: {probe.failure_threshold} probes of {probe.url} in a row failed"
        await self._stop_hung(process)

    async def _stop_hung(self, process: asyncio.subprocess.Process) -> None:
        # Signals only: `_run` waits for the container, cleans up after it and cancels this task.
        for stop, patience in ((process.terminate, HUNG_GRACE_SECONDS), (process.kill, 0.0)):
            with contextlib.suppress(ProcessLookupError):
                stop()
            await asyncio.sleep(patience)

    def _ready(self, ready: bool) -> None:
        if ready and not self._was_ready:
            self._was_ready, self._ready_since = True, time.monotonic()
        self.show(PodState.READY if ready else PodState.UNREADY)

    async def _ask(self, probe: Probe) -> bool:
        try:
            async with self._http.get(probe.url, timeout=aiohttp.ClientTimeout(total=probe.timeout)) as answer:
                return 200 <= answer.status < 400
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False


def _how_it_ended(code: int) -> str:
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    # vLLM shuts down in order when its engine has died, but its user sees a failure.
    return f"exited with code {code}" if code else "stopped by itself"
