"""A vLLM server on this machine for the duration of an evaluation."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.rollout.vllm_command import (
    CPU_ENVIRONMENT,
    ENVIRONMENT,
    SERVE,
    SERVE_MODULE,
    server_arguments,
    without_gpu,
)

STOP_SECONDS = 15.0
"""How long a server may take to stop before it is killed."""

LOG_LINES = 12


def server_command(model: Path, name: str, port: int, context_length: int, *, gpu: bool) -> list[str]:
    """The command line of vLLM for a model folder, served as `name`."""
    command: Sequence[str] = SERVE
    arguments = server_arguments(command, model, name, host="127.0.0.1", port=port, max_model_len=context_length)
    if not gpu:
        command, arguments = without_gpu(command, arguments)
    # vLLM of this environment, even if it is not on PATH.
    program = ["-m", SERVE_MODULE] if command == SERVE else []
    return [sys.executable, *program, *command[1:], *arguments]


def server_environment(environment: Mapping[str, str], *, gpu: bool) -> dict[str, str]:
    """The server's environment; variables that the user has set are not changed."""
    return {**ENVIRONMENT, **({} if gpu else CPU_ENVIRONMENT), **environment}


@asynccontextmanager
async def local_server(model: Path, name: str, context_length: int, log: Path, *, gpu: bool) -> AsyncIterator[str]:
    """Run a server and yield its URL; it may still be starting. It is stopped with all its children.

    Cancels the body and raises RolloutUnavailable, with the end of its log, when the server dies.
    """
    port = _free_port()
    command = server_command(model, name, port, context_length, gpu=gpu)
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=server_environment(os.environ, gpu=gpu),
            # Its own process group: vLLM has children, and we handle Ctrl-C.
            start_new_session=True,
        )
    body = asyncio.current_task()
    assert body is not None
    watcher = asyncio.create_task(_cancel_when_dead(process, body))
    try:
        yield f"http://127.0.0.1:{port}"
    except asyncio.CancelledError:
        if process.returncode is None:
            raise
        body.uncancel()
        raise RolloutUnavailable(
            f"the vLLM server ended with code {process.returncode}; the end of its log:\n{_tail(log)}"
        ) from None
    finally:
        watcher.cancel()
        await _stop(process)


async def _cancel_when_dead(process: asyncio.subprocess.Process, body: asyncio.Task[object]) -> None:
    await process.wait()
    body.cancel()


async def _stop(process: asyncio.subprocess.Process) -> None:
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), STOP_SECONDS)
    # Even after a clean end, since its children do not always end with it.
    _signal_group(process.pid, signal.SIGKILL)
    await process.wait()


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:])
