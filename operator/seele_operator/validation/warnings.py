"""What is probably a mistake in a SeeleRun, but may work: GPUs that nothing uses, too few of them, and pods without any."""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal

from seele_operator.api.seelerun import RolloutSpec, SeeleRun, TrainerSpec
from seele_operator.api.types import amount, is_device
from seele_operator.validation.rules.pods import template_amounts

_ACCELERATOR = re.compile(r"(?:^|[./])(?:gpu|mig|gaudi|tpu)\b")
"""Devices of which each process uses one, such as nvidia.com/gpu, nvidia.com/mig-1g.10gb and gpu.intel.com/i915."""
_NO_ACCELERATORS = ("rdma/", "hugepages-")
_PARALLEL_FLAGS = ("pipeline-parallel-size", "data-parallel-size", "data-parallel-size-local")


def run_warnings(run: SeeleRun) -> list[str]:
    """A line for each setting that is valid but probably unintended. `seele run` follows the machine's own GPUs instead."""
    trainer, rollout = run.spec.trainer, run.spec.rollout
    lines = [*_unequal("trainer.processesPerReplica", trainer.processes_per_replica, trainer)]
    if not (_has_accelerator(trainer) or _meant_for_cpu(trainer)):
        lines.append(
            "spec.trainer.resources.limits: no GPU is requested, so trainers compute on CPUs in a cluster; add "
            "nvidia.com/gpu, or set DS_ACCELERATOR to cpu in spec.trainer.env if this is intended"
        )
    if rollout.servers:
        lines += _unequal("rollout.tensorParallelSize", _used_by_server(rollout), rollout)
        if not (_has_accelerator(rollout) or _meant_for_cpu(rollout)):
            lines.append(
                "spec.rollout.resources.limits: no GPU is requested, and vLLM's image for GPUs does not start without "
                "one in a cluster; add nvidia.com/gpu, or set spec.rollout.image to an image for CPUs"
            )
    return lines


def _unequal(field: str, used: int, pods: TrainerSpec | RolloutSpec) -> Iterator[str]:
    for name, limit in _limits(pods).items():
        if not _ACCELERATOR.search(name):
            continue
        if 0 < limit < used and not _meant_for_cpu(pods):
            yield (
                f"spec.{field}: each pod needs {used} {name}, and its limit is {int(limit)}; use {int(limit)}, or raise "
                f"the limit to {used}"
            )
        if limit > used:
            yield (
                f"spec.{field}: {used} of {int(limit)} {name} in each pod {'is' if used == 1 else 'are'} used, the others "
                f"stay idle; use {int(limit)}, or lower the limit to {used}"
            )


def _used_by_server(rollout: RolloutSpec) -> int:
    used = rollout.tensor_parallel_size
    for flag in _PARALLEL_FLAGS:
        value = str(rollout.engine_args.get(flag, 1))
        used *= int(value) if value.isdigit() else 1
    return used


def _limits(pods: TrainerSpec | RolloutSpec) -> dict[str, Decimal]:
    """What each pod may use of each resource: as the resources say, or else its template."""
    in_template = {name: quantity for path, name, quantity in template_amounts(pods.pod_template) if "limits" in path}
    return {name: amount(str(quantity)) for name, quantity in {**in_template, **pods.resources.limits}.items()}


def _has_accelerator(pods: TrainerSpec | RolloutSpec) -> bool:
    """Whether a device is requested: by the resources, or in any way that a pod template has."""
    pod = pods.pod_template.get("spec")
    if isinstance(pod, Mapping) and pod.get("resourceClaims"):
        return True
    limits = _limits(pods).items()
    return any(limit and is_device(name) and not name.startswith(_NO_ACCELERATORS) for name, limit in limits)


def _meant_for_cpu(pods: TrainerSpec | RolloutSpec) -> bool:
    chosen = any(variable.name == "DS_ACCELERATOR" and variable.value == "cpu" for variable in pods.env)
    return chosen or "cpu" in pods.image.rpartition("/")[2]
