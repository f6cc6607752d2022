"""Rules for what goes into the pods: resources, environment, overrides of the pod template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from seele_operator.api.pod_template import Path
from seele_operator.api.problems import shown, yaml_path
from seele_operator.api.seelerun import EnvironmentVariable, Resources, SeeleRunSpec
from seele_operator.api.types import MAX_NAME_LENGTH, RESERVED_ENVIRONMENT, amount
from seele_operator.validation.rules.rule import Rule

_GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")


def resource_problems(path: Path, resources: Resources) -> Iterator[str]:
    """Requests above their limits."""
    for name, requested in resources.requests.items():
        limit = resources.limits.get(name)
        if limit is not None and amount(requested) > amount(limit):
            place = yaml_path((*path, "resources", "requests", name))
            yield f"{place}: {requested} is above its limit, {limit}; request at most the limit"


def gpu_problems(spec: SeeleRunSpec) -> Iterator[str]:
    """Fewer GPUs in a pod than its processes split over."""
    for field, wanted, resources in (
        ("spec.trainer.processesPerReplica", spec.trainer.processes_per_replica, spec.trainer.resources),
        ("spec.rollout.tensorParallelSize", spec.rollout.tensor_parallel_size, spec.rollout.resources),
    ):
        for name in _GPU_RESOURCES:
            if name in resources.limits and 0 < amount(resources.limits[name]) < wanted:
                have = resources.limits[name]
                yield f"{field}: {wanted} needs as many GPUs, and {name} is limited to {have}; raise that limit"


def env_problems(path: Path, env: Sequence[EnvironmentVariable]) -> Iterator[str]:
    """Environment variables that are given twice."""
    names = [variable.name for variable in env]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield f"{yaml_path((*path, 'env', index, 'name'))}: {shown(name)} is given twice; keep one of them"


def _engine(spec: SeeleRunSpec) -> Iterator[str]:
    if spec.rollout.engine != "transformers":
        return
    for field, value in (
        ("replicas", spec.rollout.replicas),
        ("tensorParallelSize", spec.rollout.tensor_parallel_size),
    ):
        if value > 1:
            yield f"spec.rollout.{field}: {value} needs servers; use 1 with engine transformers, or engine: vllm"


def _enough_gpus(section: str, field: str, name: str) -> Rule:
    limits = f"self.{section}.resources.limits"
    amount = f"string({limits}['{name}'])"
    # Only amounts in plain digits are compared: what `2k` stands for, only the operator says.
    few = f"{amount}.matches('^0*[1-9][0-9]{{0,9}}$') && int({amount}) < self.{section}.{field}"
    return Rule(
        "spec",
        f"!('{name}' in {limits} && {few})",
        f"spec.{section}.{field}: needs as many GPUs, and {name} is limited to fewer; raise that limit",
    )


_PODS = (
    *(
        _enough_gpus(section, field, name)
        for section, field in (("trainer", "processesPerReplica"), ("rollout", "tensorParallelSize"))
        for name in ("nvidia.com/gpu", "amd.com/gpu")
    ),
    Rule(
        "spec",
        "!has(self.storage.run.emptyDir) || "
        "self.trainer.replicas + (self.rollout.engine == 'vllm' ? self.rollout.replicas : 0) <= 1",
        "spec.storage.run.emptyDir: belongs to one pod, and this run has several that share its folder; use a "
        "persistentVolumeClaim or persistentVolumeClaimTemplate that is ReadWriteMany, or a hostPath on a cluster of "
        "one node",
    ),
    *(
        Rule(
            "spec",
            f"self.rollout.engine == 'vllm' || self.rollout.{field} <= 1",
            f"spec.rollout.{field}: needs servers; use 1 with engine transformers, or engine: vllm",
        )
        for field in ("replicas", "tensorParallelSize")
    ),
    Rule(
        "spec",
        "self.scheduling.gang != 'kueue' || has(self.scheduling.queueName)",
        "spec.scheduling.queueName: is missing, and gang kueue needs it; name a LocalQueue of the run's namespace",
    ),
    Rule(
        "spec",
        "!(self.scheduling.gang in ['none', 'coscheduling']) || !has(self.scheduling.queueName)",
        "spec.scheduling.queueName: has no effect with gangs none and coscheduling; remove it, or use gang: kueue or "
        "volcano",
    ),
)

_OBJECT_NAMES = {
    "spec.storage.run.persistentVolumeClaim": "claimName",
    "spec.storage.huggingFaceCache.persistentVolumeClaim": "claimName",
    "spec.storage.huggingFaceTokenSecret": "name",
    "spec.scheduling": "priorityClassName serviceAccountName queueName",
    "spec.scheduling.imagePullSecrets[]": "name",
}

_OBJECT_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"

_QUANTITY = "^([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"

_NAMES = (
    Rule(
        "",
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name: must be a DNS label that begins with a letter, of at most {MAX_NAME_LENGTH} characters, as "
        "names of pods and services derive from it",
    ),
    *(
        Rule(
            f"{place}.{field}",
            f"self.matches('{_OBJECT_NAME}')",
            f"{place}.{field}: is no name of a Kubernetes object; use small letters, digits, hyphens and dots",
        )
        for place, fields in _OBJECT_NAMES.items()
        for field in fields.split()
    ),
    *(
        Rule(
            f"spec.storage.{volume}.hostPath.path",
            "self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
            f"spec.storage.{volume}.hostPath.path: is no absolute path; begin it with / and leave out ..",
        )
        for volume in ("run", "huggingFaceCache")
    ),
    *(
        Rule(
            f"spec.storage.{volume}",
            "[has(self.persistentVolumeClaim), has(self.persistentVolumeClaimTemplate), has(self.hostPath), "
            "has(self.emptyDir)].exists_one(given, given)",
            f"spec.storage.{volume}: give one of `persistentVolumeClaim`, `persistentVolumeClaimTemplate`, `hostPath` "
            "and `emptyDir`",
        )
        for volume in ("run", "huggingFaceCache")
    ),
)

_RESERVED = ", ".join(f"'{name}'" for name in sorted(RESERVED_ENVIRONMENT))


def _quantity(place: str) -> Rule:
    return Rule(
        place,
        f"type(self) == int ? self >= 0 : self.matches('{_QUANTITY}')",
        f"{place}: is not a Kubernetes quantity; write a number with a unit, such as 500m, 4, 512Mi or 8Gi",
    )


_CONTAINERS = (
    *(
        rule
        for section in ("trainer", "rollout")
        for rule in (
            Rule(
                f"spec.{section}.env[].name",
                "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                f"spec.{section}.env: is no name of an environment variable; use letters, digits and underscores",
            ),
            Rule(
                f"spec.{section}.env[].name",
                f"!self.startsWith('SEELE_') && !(self in [{_RESERVED}])",
                f"spec.{section}.env: is set by Seele itself; remove it",
            ),
            Rule(
                f"spec.{section}.env",
                "self.all(one, self.exists_one(other, other.name == one.name))",
                f"spec.{section}.env: a name is given twice; keep one of them",
            ),
        )
    ),
    _quantity("spec.storage.run.emptyDir.sizeLimit"),
    _quantity("spec.storage.huggingFaceCache.emptyDir.sizeLimit"),
    _quantity("spec.storage.sharedMemory"),
    Rule(
        "spec.evaluation.benchmarks",
        "self.all(one, self.exists_one(other, other.title == one.title))",
        "spec.evaluation: two benchmarks have the same title: give each its own",
    ),
)
