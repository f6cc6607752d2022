"""A real vLLM server on the CPU for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from pathlib import Path

from seele_trainer.rollout import vllm_command
from tests.support.control_plane import free_port

START_SECONDS = 180.0
STOP_SECONDS = 20.0

ENVIRONMENT = {
    **vllm_command.ENVIRONMENT,
    **vllm_command.CPU_ENVIRONMENT,
    "HF_HUB_OFFLINE": "1",
    # Two threads that share their cores with a trainer wait for each other most of the time (docs/development.md).
    "OMP_NUM_THREADS": "1",
}
FLAGS = {"kv-cache-memory-bytes": 64 * 2**20, "disable-uvicorn-access-log": True}


class VllmProcess(AbstractContextManager["VllmProcess"]):
    """`with VllmProcess(folder, log) as server:` — a server at `server.url`, on a free port, that answers /health."""

    def __init__(self, model: Path, log: Path, *, max_model_len: int = 256, tokenizer: bool = False) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = log
        command, arguments = vllm_command.without_gpu(
            vllm_command.SERVER_MODULE,
            vllm_command.server_arguments(
                vllm_command.SERVER_MODULE,
                model,
                "seele",
                host="127.0.0.1",
                port=self.port,
                max_model_len=max_model_len,
                engine_args={**FLAGS, "skip-tokenizer-init": not tokenizer},
            ),
        )
        self._command = [sys.executable, *command[1:], *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> VllmProcess:
        try:
            self.start()
            self.wait()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start the server without waiting for it; after `kill`, again on the same port."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env={**os.environ, **ENVIRONMENT}, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self) -> None:
        """Wait until the server answers /health."""
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"vLLM did not come up:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.2)

    def kill(self) -> None:
        """Kill the whole process group, and wait until it is gone."""
        if self._process is None:
            return
        group = self._process.pid
        deadline = time.monotonic() + STOP_SECONDS
        while _signal(group, signal.SIGKILL):
            self._process.poll()
            if time.monotonic() > deadline:
                raise RuntimeError(f"process group {group} of vLLM cannot be killed")
            time.sleep(0.05)
        self._process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def _signal(group: int, number: int) -> bool:
    """Whether there still was a process in the group."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True
