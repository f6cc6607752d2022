"""A vLLM server of one's own on this machine, for as long as something is evaluated."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from seele_trainer.rollout.protocol import RolloutUnavailable

STOP_SECONDS = 15.0
"""How long a server may take to stop by itself before it is killed."""

LOG_LINES = 12


def server_command(model: Path, name: str, port: int, context_length: int, *, gpu: bool) -> list[str]:
    """The command line of vLLM for a model folder, served as `name`."""
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
        f"--model={model}",
        f"--served-model-name={name}",
        "--host=127.0.0.1",
        f"--port={port}",
        f"--max-model-len={context_length}",
        # What the client expects with each token, in training as here.
        "--logprobs-mode=processed_logprobs",
    ]
    if not gpu:
        # On a CPU the last one is the share of memory that vLLM insists on finding free when it starts.
        command += ["--enforce-eager", "--dtype=float32", "--gpu-memory-utilization=0.3"]
    return command


def server_environment(environment: Mapping[str, str], *, gpu: bool) -> dict[str, str]:
    """The server's environment; what the user has set stays."""
    ours = {"VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    if not gpu:
        ours |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return {**ours, **environment}


@asynccontextmanager
async def local_server(model: Path, name: str, context_length: int, log: Path, *, gpu: bool) -> AsyncIterator[str]:
    """Run a server and give its URL; it may still be starting. Nothing of it is left behind.

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
            # A group of its own: vLLM has children, and Ctrl-C is for us to handle.
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
    # Also after a clean end: its children do not always follow.
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
