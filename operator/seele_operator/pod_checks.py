"""Rules for what goes into the pods: resources, environment, overrides of the pod template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from seele_operator.bad_run import shown, yaml_path
from seele_operator.field_problems import nearest
from seele_operator.merge import MERGE_KEYS
from seele_operator.quantity import amount
from seele_operator.spec import LABEL_PREFIX, EnvironmentVariable, FreeObject, Resources, SeeleRunSpec

Path = tuple[str | int, ...]

_GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")
_TEMPLATE = ("metadata", "spec")
_TEMPLATE_METADATA = ("labels", "annotations")
_FIXED_POD_FIELDS = {
    "restartPolicy": "remove it: Seele restarts all trainers together (spec.runPolicy.backoffLimit)",
    "hostname": "remove it: ranks find each other by it",
    "terminationGracePeriodSeconds": "set spec.runPolicy.terminationGracePeriodSeconds",
    "subdomain": "remove it: ranks find each other by it",
    "activeDeadlineSeconds": "set spec.runPolicy.activeDeadlineSeconds",
}


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


def template_problems(path: Path, template: FreeObject) -> Iterator[str]:
    """Overrides that no pod has room for, that would break the run, or that cannot be merged."""
    path = (*path, "podTemplate")
    yield from _only(path, template, _TEMPLATE)
    metadata, pod = template.get("metadata", {}), template.get("spec", {})
    for name, part in (("metadata", metadata), ("spec", pod)):
        if not isinstance(part, Mapping):
            yield f"{yaml_path((*path, name))}: {shown(part)} is not a mapping; write its fields below it"
    if isinstance(metadata, Mapping):
        yield from _only((*path, "metadata"), metadata, _TEMPLATE_METADATA)
        labels = metadata.get("labels")
        for label in labels if isinstance(labels, Mapping) else ():
            if label.startswith(LABEL_PREFIX):
                yield f"{yaml_path((*path, 'metadata', 'labels', label))}: is set by Seele itself; remove it"
    if isinstance(pod, Mapping):
        for field, remedy in _FIXED_POD_FIELDS.items():
            if field in pod:
                yield f"{yaml_path((*path, 'spec', field))}: is set by Seele itself; {remedy}"
        security = pod.get("securityContext")
        if security is not None and not isinstance(security, Mapping):
            place = yaml_path((*path, "spec", "securityContext"))
            yield f"{place}: {shown(security)} is not a mapping; write its fields below it"
        yield from _unmergeable((*path, "spec"), pod)


def _only(path: Path, given: Mapping[str, object], known: Sequence[str]) -> Iterator[str]:
    for name in given:
        if name not in known:
            near = nearest(name, known)
            remedy = f"did you mean {near}?" if near else f"use {' and '.join(known)}"
            yield f"{yaml_path((*path, name))}: is not a field; {remedy}"


def _unmergeable(path: Path, fields: Mapping[str, object]) -> Iterator[str]:
    """Lists that are merged by a key, and whose entries lack it."""
    for name, value in fields.items():
        if name not in MERGE_KEYS or value is None:
            continue
        here = (*path, name)
        if not isinstance(value, list):
            yield f"{yaml_path(here)}: {shown(value)} is not a list; write each entry on a line of its own, after `- `"
            continue
        for index, entry in enumerate(value):
            if isinstance(entry, Mapping) and MERGE_KEYS[name] in entry:
                yield from _unmergeable((*here, index), entry)
            else:
                place = yaml_path((*here, index))
                yield f"{place}: has no {MERGE_KEYS[name]}, by which it is merged; give it one"
