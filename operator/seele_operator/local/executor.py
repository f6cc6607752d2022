"""Executes a plan on this machine: starts all pods, restarts rollout servers, and stops everything when training ends."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from seele_operator.local.accelerator import adapt, gpus
from seele_operator.local.display import Display, follow_progress, open_display
from seele_operator.local.logs import follow_logs, last_lines
from seele_operator.local.pod import Exit, PodLife, PodState
from seele_operator.local.ports import declared, reserved
from seele_operator.local.processes import Processes, guarded
from seele_operator.local.translate import CannotRunHere, LocalPod, Machine, files_of, translate
from seele_operator.observe.last_words import dies_again, error_line, last_words, without_noise
from seele_operator.plan.names import Manifest
from seele_trainer.formatting import duration
from seele_trainer.run_folder.records import Progress
from seele_trainer.termination import ExitCode

TAIL_LINES = 20


@dataclass(frozen=True)
class Limits:
    """How often pods may fail before the run fails; times in seconds."""

    early_exits: int = 3
    """Times in a row that a rollout server may end before it is ready."""
    restarts: int = 10
    """Restarts of one rollout server."""
    settled_seconds: float = 30.0
    """A rollout server that ends sooner than this after it was ready counts as having ended at its start."""
    first_delay: float = 1.0
    """Delay of the first restart; doubled for each further one."""
    longest_delay: float = 30.0
    stop_grace: float = 30.0
    """Grace period of pods that have nothing to save, or less if the run allows less."""
    save_grace: float = 24 * 3600.0
    """Grace period of trainers that have something to save. The user can end it with a second signal."""
    failure_grace: float = 5.0
    """Grace period of the other trainers after one has failed: they wait for a lost rank and cannot save anything."""


class RunFailed(RuntimeError):
    """The run has failed. The message names the pod, the reason and the log."""


@dataclass(frozen=True)
class Interrupts:
    """Set when the user asks to stop, and asks again to stop at once."""

    stop: asyncio.Event
    at_once: asyncio.Event


def run_locally(
    objects: Sequence[Manifest],
    run_folder: Path,
    *,
    verbose: bool = False,
    lock: int | None = None,
    limits: Limits = Limits(),
) -> ExitCode:
    """Execute the pods among `objects` until all trainers are done, one fails, or the user interrupts.

    `lock` is a file descriptor that stays open until the last process of the run is gone, even if this one is killed.
    Raises CannotRunHere and NoFreePort before anything is started.
    """
    run_folder = run_folder.resolve()
    pods, notes = adapt(
        [manifest for manifest in objects if manifest["kind"] == "Pod"], gpus(os.environ), os.cpu_count() or 1
    )
    with reserved(declared(pods)) as ports:
        machine = Machine(run_folder, sys.executable, dict(os.environ), ports)
        local = [translate(pod, pods, machine) for pod in pods]
        config_maps = [manifest for manifest in objects if manifest["kind"] == "ConfigMap"]
        _write_plan(files_of(config_maps, machine, pods), run_folder)
        with open_display(run_folder.name, verbose) as shown, guarded(lock) as processes:
            for note in [*notes, *(note for pod in local for note in pod.notes)]:
                shown.note(note)
            return asyncio.run(_execute(local, run_folder, processes, limits, shown))


def _write_plan(files: Mapping[Path, str], run_folder: Path) -> None:
    try:
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        (run_folder / "logs").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotRunHere(
            f"--out: {error.filename or run_folder} cannot be written: {error.strerror}; free space there, "
            "or give another folder"
        ) from error


async def _execute(
    pods: Sequence[LocalPod], run_folder: Path, processes: Processes, limits: Limits, display: Display
) -> ExitCode:
    with _interrupts() as interrupts:
        async with aiohttp.ClientSession() as http:
            lives = [
                PodLife(pod, processes, http, run_folder / "logs" / f"{pod.name}.log", display.state) for pod in pods
            ]
            following = [
                asyncio.create_task(follow_logs([(life.pod, life.log) for life in lives], display)),
                asyncio.create_task(follow_progress(pods, http, display)),
            ]
            try:
                outcome = await _until_decided(lives, limits, interrupts, display)
            finally:
                await _end(lives, limits, interrupts)
                await processes.clear_all()
                for task in following:
                    task.cancel()
                await asyncio.gather(*following, return_exceptions=True)
    return outcome


async def _until_decided(
    lives: Sequence[PodLife], limits: Limits, interrupts: Interrupts, display: Display
) -> ExitCode:
    """Run all pods until the outcome is clear; then stop the trainers first, since they have something to save."""
    trainers = {asyncio.create_task(_train(life)): life for life in lives if life.pod.role == "trainer"}
    servers = {asyncio.create_task(_serve(life, limits)): life for life in lives if life.pod.role != "trainer"}
    stop = asyncio.create_task(interrupts.stop.wait())
    pending: set[asyncio.Task[Any]] = {*trainers, *servers, stop}
    outcome, grace = ExitCode.DONE, None
    try:
        while any(not task.done() for task in trainers):
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            if stop in done:
                fate, must_wait = stop_effect(display.latest)
                display.note(f"stopping: {fate}")
                outcome, grace = ExitCode.INTERRUPTED, limits.save_grace if must_wait else None
                break
            for task in done:
                task.result()
    except RunFailed as failure:
        display.failure(str(failure))
        outcome, grace = ExitCode.FAILED, limits.failure_grace
    finally:
        await _cancel([*trainers, stop])
        # The servers are stopped later: a trainer that finishes its step still needs them.
        await _end(trainers.values(), limits, interrupts, grace)
        await _cancel(servers)
    return outcome


def stop_effect(progress: Progress | None) -> tuple[str, bool]:
    """What a stop does, in words, and whether the trainers must be given the time that it takes.

    The trainer itself decides, and says so in its log: the progress may be half a second old.
    """
    at_once = "press Ctrl-C again to kill everything at once"
    takes = (
        "" if progress is None or progress.stop_seconds is None else f" (in {duration(progress.stop_seconds)} at most)"
    )
    if progress is not None and progress.unsaved_step is not None:
        step = progress.unsaved_step
        return (
            f"step {step} is saved first{takes}, and finished before that if its updates have begun; {at_once}, and lose it"
        ), True
    if progress is not None and progress.phase == "train":
        return (
            f"the step in training is abandoned, or finished and saved{takes} if its updates have begun; {at_once}",
            True,
        )
    return f"nothing has to be saved; {at_once}", False


async def _train(life: PodLife) -> None:
    exit = await life.live()
    if exit.code != 0:
        life.show(PodState.FAILED, exit.reason)
        raise RunFailed(_failure(life, exit))
    life.show(PodState.DONE)


async def _serve(life: PodLife, limits: Limits) -> None:
    """Keep a rollout server running. Raises RunFailed if it ends too often, or twice for the same reason at its start."""
    early = restarts = 0
    error_before = ""
    while True:
        exit = await life.live()
        error = error_line(last_lines(life.log, life.log_began))
        early = 0 if exit.was_ready else early + 1
        restarts += 1
        # A server may be ready for a moment, and die of its first request.
        at_start = exit.ready_seconds < limits.settled_seconds
        hopeless = at_start and dies_again(error, error_before)
        if hopeless or early >= limits.early_exits or restarts > limits.restarts:
            life.show(PodState.FAILED, _reason(exit, error))
            raise RunFailed(
                f"{life.pod.name} ended {_times(early, restarts, hopeless, limits)}:\n{_failure(life, exit)}"
            )
        error_before = error if at_start else ""
        life.show(PodState.RESTARTING, _reason(exit, error))
        await asyncio.sleep(min(limits.longest_delay, limits.first_delay * 2 ** (restarts - 1)))


def _times(early: int, restarts: int, hopeless: bool, limits: Limits) -> str:
    if hopeless:
        return "twice at its start, for the same reason"
    if early >= limits.early_exits:
        return f"{early} times before it was ready; the last time"
    return f"{restarts} times; the last time"


def _reason(exit: Exit, error: str) -> str:
    return f"{exit.reason}: {error}" if error else exit.reason


def _failure(life: PodLife, exit: Exit) -> str:
    log = last_lines(life.log, life.log_began)
    # A trainer's own last words are the last lines of its log.
    lines = without_noise(log)[-TAIL_LINES:] if life.pod.role == "trainer" else last_words(log, TAIL_LINES)
    return "\n".join([f"{life.pod.name}: {exit.reason}", *(f"  | {line}" for line in lines), f"full log: {life.log}"])


async def _end(lives: Iterable[PodLife], limits: Limits, interrupts: Interrupts, grace: float | None = None) -> None:
    await asyncio.gather(
        *(life.end(grace or min(life.pod.grace_seconds, limits.stop_grace), interrupts.at_once) for life in lives)
    )


async def _cancel(tasks: Iterable[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _interrupts() -> Iterator[Interrupts]:
    """SIGINT, SIGTERM and SIGHUP as events: the first signal sets `stop`, the second `at_once`."""
    interrupts = Interrupts(asyncio.Event(), asyncio.Event())
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        (interrupts.at_once if interrupts.stop.is_set() else interrupts.stop).set()

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in caught:
        loop.add_signal_handler(number, interrupted)
    try:
        yield interrupts
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
