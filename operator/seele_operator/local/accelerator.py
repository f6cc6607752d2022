"""What a pod needs on a machine as it is: without a GPU, or with fewer or more GPUs than the pods ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from seele_operator.api.pod_template import merge
from seele_operator.plan import names
from seele_operator.plan.names import Manifest

GPU = "nvidia.com/gpu"

CPU_SERVER_FLAGS = {
    "enforce-eager": None,
    "dtype": "float32",
    # Room for the KV cache in bytes. Without it vLLM takes a share of all memory, and insists on finding that free.
    "kv-cache-memory-bytes": str(2**30),
    # A seeded request whose prompt is split over two batches kills vLLM 0.32 on a CPU ("CPU Generator does not use offset").
    "no-enable-chunked-prefill": None,
}
"""Flags that vLLM needs without a GPU, unless the run gives its own."""


def gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Names of the CUDA devices that a process here may use, as CUDA_VISIBLE_DEVICES lists them. Asks no driver."""
    present = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    if not present:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return sorted(present, key=int)
    return [device.strip() for device in visible.split(",") if device.strip() not in {"", "-1"}]


def adapt(pods: Sequence[Manifest], devices: Sequence[str], cores: int) -> tuple[list[Manifest], list[str]]:
    """The pods for a machine with `devices` and `cores`, and notes for the user about what is different."""
    if devices:
        return _share_gpus(pods, devices)
    asking = [pod["metadata"]["name"] for pod in pods if requested_gpus(pod)]
    notes = [f"no GPU here: the {GPU} that {', '.join(asking)} ask for is left out"] if asking else []
    servers = sum(_role(pod) == "rollout" for pod in pods)
    trainers = sum(_role(pod) == "trainer" for pod in pods)
    threads = {"rollout": max(1, cores // max(1, servers)), "trainer": max(1, cores // max(1, trainers))}
    return [adapt_to_cpu(pod, threads.get(_role(pod), 1)) for pod in pods], notes


def adapt_to_cpu(pod: Manifest, threads: int) -> Manifest:
    """The pod with what DeepSpeed (trainers) and vLLM (rollout servers) need on a CPU; what it sets itself stays.

    Trainer and servers take turns, so each may have all cores; `threads` bounds the OpenMP threads of each process.
    """
    passive = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    if _role(pod) == "trainer":
        return _with_environment(pod, {"DS_ACCELERATOR": "cpu", **passive})
    if _role(pod) != "rollout":
        return pod
    adapted = _with_environment(
        pod,
        # Unbound: with threads pinned to cores, a server and the trainer would fight for the same ones.
        # One process does what two would do, and starts 10 s earlier.
        {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind", **passive},
    )
    server = adapted["spec"]["containers"][0]
    arguments = list(server.get("args", ()))
    given = {argument.removeprefix("--").partition("=")[0] for argument in arguments if argument.startswith("--")}
    arguments += [
        f"--{flag}" if value is None else f"--{flag}={value}"
        for flag, value in CPU_SERVER_FLAGS.items()
        if flag not in given
    ]
    return merge(adapted, {"spec": {"containers": [{"name": server["name"], "args": arguments}]}})


def requested_gpus(pod: Manifest) -> int:
    """GPUs that the pod's containers may use."""
    return sum(
        int(container.get("resources", {}).get("limits", {}).get(GPU, 0)) for container in pod["spec"]["containers"]
    )


def _share_gpus(pods: Sequence[Manifest], devices: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """Give each pod as many devices as it asks for, one after the other, beginning again where there are too few."""
    wanted = sum(requested_gpus(pod) for pod in pods)
    notes = (
        [f"the pods ask for {wanted} GPUs and there are {len(devices)}: some are shared"]
        if wanted > len(devices)
        else []
    )
    adapted, taken = [], 0
    for pod in pods:
        count = min(requested_gpus(pod), len(devices))
        own = [devices[(taken + offset) % len(devices)] for offset in range(count)]
        taken += count
        adapted.append(_with_environment(pod, {"CUDA_VISIBLE_DEVICES": ",".join(own)}) if own else pod)
    return adapted, notes


def _with_environment(pod: Manifest, values: Mapping[str, str]) -> Manifest:
    """The pod with further variables for its first container, the one that runs here; those it has stay."""
    main = pod["spec"]["containers"][0]
    given = {entry["name"] for entry in main.get("env", ())}
    added = [{"name": name, "value": value} for name, value in values.items() if name not in given]
    return merge(pod, {"spec": {"containers": [{"name": main["name"], "env": added}]}})


def _role(pod: Manifest) -> str:
    role: str = pod["metadata"].get("labels", {}).get(names.ROLE_LABEL, "")
    return role
