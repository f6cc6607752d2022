"""Adapts pods to the GPUs of this machine: none, or more or fewer than the pods request."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from seele_operator.api.pod_template import merge
from seele_operator.api.types import amount
from seele_operator.plan import names
from seele_operator.plan.names import Manifest
from seele_trainer.rollout.vllm_command import CPU_ENVIRONMENT, without_gpu

GPU = "nvidia.com/gpu"


def gpus(environment: Mapping[str, str], devices: Path = Path("/dev")) -> list[str]:
    """Names of the CUDA devices available here, as in CUDA_VISIBLE_DEVICES. Does not need the driver."""
    present = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
    if not present:
        return []
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return sorted(present, key=int)
    return [device.strip() for device in visible.split(",") if device.strip() not in {"", "-1"}]


def adapt(pods: Sequence[Manifest], devices: Sequence[str], cores: int) -> tuple[list[Manifest], list[str]]:
    """The pods for a machine with `devices` and `cores`, and notes for the user about the differences."""
    if devices:
        return _share_gpus(pods, devices)
    requesting = [pod["metadata"]["name"] for pod in pods if requested_gpus(pod)]
    notes = [f"no GPU here: the {GPU} requested by {', '.join(requesting)} is ignored"] if requesting else []
    servers = sum(_role(pod) == "rollout" for pod in pods)
    trainers = sum(_role(pod) == "trainer" for pod in pods)
    threads = {"rollout": max(1, cores // max(1, servers)), "trainer": max(1, cores // max(1, trainers))}
    return [adapt_to_cpu(pod, threads.get(_role(pod), 1)) for pod in pods], notes


def adapt_to_cpu(pod: Manifest, threads: int) -> Manifest:
    """The pod with what DeepSpeed (trainers) and vLLM (rollout servers) need on a CPU; its own settings win.

    Trainer and servers take turns, so each may have all cores; `threads` bounds the OpenMP threads of each process.
    """
    passive = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    if _role(pod) == "trainer":
        return _with_environment(pod, {"DS_ACCELERATOR": "cpu", **passive})
    if _role(pod) != "rollout":
        return pod
    adapted = _with_environment(pod, {**CPU_ENVIRONMENT, **passive})
    server = adapted["spec"]["containers"][0]
    command, arguments = without_gpu(server.get("command", ()), server.get("args", ()))
    return merge(adapted, {"spec": {"containers": [{"name": server["name"], "command": command, "args": arguments}]}})


def requested_gpus(pod: Manifest) -> int:
    """GPUs requested by the pod's containers."""
    return sum(
        int(amount(str(container.get("resources", {}).get("limits", {}).get(GPU, 0))))
        for container in pod["spec"]["containers"]
    )


def _share_gpus(pods: Sequence[Manifest], devices: Sequence[str]) -> tuple[list[Manifest], list[str]]:
    """Assign each pod as many devices as it requests, in turn; if there are too few, some are assigned twice."""
    wanted = sum(requested_gpus(pod) for pod in pods)
    notes = (
        [f"the pods request {wanted} GPUs and there are {len(devices)}: some are shared"]
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
    """The pod with more variables for its first container, the one that runs here; those it has already win."""
    main = pod["spec"]["containers"][0]
    given = {entry["name"] for entry in main.get("env", ())}
    added = [{"name": name, "value": value} for name, value in values.items() if name not in given]
    return merge(pod, {"spec": {"containers": [{"name": main["name"], "env": added}]}})


def _role(pod: Manifest) -> str:
    role: str = pod["metadata"].get("labels", {}).get(names.ROLE_LABEL, "")
    return role
