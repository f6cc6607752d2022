"""Rules that matter only on a cluster, where each pod has its own node and its own folders."""

from collections.abc import Iterator, Mapping

from seele_operator.api.seelerun import FreeObject, SeeleRunSpec
from seele_operator.api.types import amount, is_device, shown, yaml_path
from seele_operator.validation.rules.rule import Rules, Values

RULES = Rules()

_SYSTEM = (
    *("bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "root", "sbin", "sys", "usr"),
    "var/lib/kubelet",
)
"""Folders of a node that a run must not use, at any depth."""

_SHARED = ("", "home", "media", "mnt", "opt", "run", "srv", "tmp", "var", "var/cache", "var/lib", "var/log", "var/tmp")
"""Folders of a node in which a run may have a folder of its own."""

_MAX_LABEL_LENGTH = 63


@RULES.add(
    "spec.storage.run.emptyDir",
    "belongs to one pod, and this run has [{pods}|several] that share its folder; use a persistentVolumeClaim or "
    "persistentVolumeClaimTemplate that is ReadWriteMany, or a hostPath on a cluster of one node",
    "!has(self.storage.run.emptyDir) || "
    "self.trainer.replicas + (self.rollout.engine == 'vllm' ? self.rollout.replicas : 0) <= 1",
)
def _one_folder(spec: SeeleRunSpec) -> Iterator[Values]:
    pods = spec.trainer.replicas + spec.rollout.servers
    if pods > 1 and spec.storage.run.empty_dir is not None:
        yield {"pods": pods}


@RULES.add(
    "spec.storage.{volume}.hostPath.path",
    "{path} belongs to the node itself, and would be given to the run's user; use a folder of its own, such as "
    "/var/lib/seele",
)
def _node_folders(spec: SeeleRunSpec) -> Iterator[Values]:
    for name, volume in (("run", spec.storage.run), ("huggingFaceCache", spec.storage.hugging_face_cache)):
        if volume is None or volume.host_path is None:
            continue
        path = "/".join(part for part in volume.host_path.path.split("/") if part not in {"", "."})
        if path in _SHARED or any(f"{path}/".startswith(f"{system}/") for system in _SYSTEM):
            yield {"volume": name, "path": shown(volume.host_path.path)}


@RULES.add(
    "spec.rollout.podTemplate.spec.securityContext.runAsUser",
    "{rollout} is not the trainer's, {trainer}, and both write to the run's hostPath; use the same for both",
)
def _users(spec: SeeleRunSpec) -> Iterator[Values]:
    """Two users cannot write each other's files."""
    trainer, rollout = (_user(pods.pod_template) for pods in (spec.trainer, spec.rollout))
    if spec.storage.run.host_path is not None and spec.rollout.servers and trainer != rollout:
        yield {"trainer": shown(trainer), "rollout": shown(rollout)}


def _user(template: FreeObject) -> object:
    inner: object = template
    for key in ("spec", "securityContext", "runAsUser"):
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    return inner


@RULES.add(
    "{field}",
    "{requested} cannot be shared with other pods, and {limit}; give the limit alone, which requests it",
)
def _devices(spec: SeeleRunSpec) -> Iterator[Values]:
    """Kubernetes requires that the request for a device equals its limit."""
    for section, resources in (("trainer", spec.trainer.resources), ("rollout", spec.rollout.resources)):
        for name, requested in resources.requests.items():
            limit = resources.limits.get(name)
            indivisible = is_device(name) or name.startswith("hugepages-")
            if indivisible and (limit is None or amount(limit) != amount(requested)):
                yield {
                    "field": yaml_path(("spec", section, "resources", "requests", name)),
                    "requested": requested,
                    "limit": "has no limit" if limit is None else f"its limit is {limit}",
                }


@RULES.add(
    "spec.scheduling.queueName",
    "has {length} characters, and pods carry it as a label; name a LocalQueue of at most {longest}",
)
def _queue_label(spec: SeeleRunSpec) -> Iterator[Values]:
    name = spec.scheduling.queue_name
    if spec.scheduling.gang == "kueue" and name is not None and len(name) > _MAX_LABEL_LENGTH:
        yield {"length": len(name), "longest": _MAX_LABEL_LENGTH}
