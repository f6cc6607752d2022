"""What is probably a mistake in a SeeleRun, but works: GPUs that nothing uses, and pods that have none."""

from collections.abc import Iterator, Mapping

from seele_operator.api.seelerun import FreeObject, Resources, RolloutSpec, SeeleRun, TrainerSpec
from seele_operator.api.types import amount, is_device
from seele_operator.validation.rules.pods import template_amounts

GPUS = ("nvidia.com/gpu", "amd.com/gpu")
_NO_ACCELERATORS = ("rdma/", "hugepages-")
_PARALLEL_FLAGS = ("pipeline-parallel-size", "data-parallel-size", "data-parallel-size-local")


def run_warnings(run: SeeleRun) -> list[str]:
    """A line for each thing that is valid and probably not meant. `seele run` follows the machine's own GPUs instead."""
    trainer, rollout = run.spec.trainer, run.spec.rollout
    lines = [*_idle("trainer.processesPerReplica", trainer.processes_per_replica, trainer.resources)]
    if not (_has_accelerator(trainer.resources, trainer.pod_template) or _meant_for_cpu(trainer)):
        lines.append(
            "spec.trainer.resources.limits: no GPU is requested, so trainers compute on CPUs in a cluster; add "
            "nvidia.com/gpu, or set DS_ACCELERATOR to cpu in spec.trainer.env if this is meant"
        )
    if rollout.servers:
        lines += _idle("rollout.tensorParallelSize", _used_by_server(rollout), rollout.resources)
        if not (_has_accelerator(rollout.resources, rollout.pod_template) or _meant_for_cpu(rollout)):
            lines.append(
                "spec.rollout.resources.limits: no GPU is requested, and vLLM's image for GPUs does not start without "
                "one in a cluster; add nvidia.com/gpu, or set spec.rollout.image to an image for CPUs"
            )
    return lines


def _idle(field: str, used: int, resources: Resources) -> Iterator[str]:
    for name in GPUS:
        limit = amount(resources.limits.get(name, "0"))
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


def _has_accelerator(resources: Resources, template: FreeObject) -> bool:
    """Whether a device is requested: by the resources, or in any way that a pod template has."""
    pod = template.get("spec")
    if isinstance(pod, Mapping) and pod.get("resourceClaims"):
        return True
    names = {*resources.requests, *resources.limits, *(name for _, name, _ in template_amounts(template))}
    return any(is_device(name) and not name.startswith(_NO_ACCELERATORS) for name in names)


def _meant_for_cpu(pods: TrainerSpec | RolloutSpec) -> bool:
    chosen = any(variable.name == "DS_ACCELERATOR" and variable.value == "cpu" for variable in pods.env)
    return chosen or "cpu" in pods.image.rpartition("/")[2]
