"""Rules that matter only where a run becomes pods of a cluster. Each yields lines: field, value, reason, remedy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seele_operator.api.problems import shown, yaml_path
from seele_operator.api.seelerun import FreeObject, SeeleRunSpec
from seele_operator.api.types import amount

_SYSTEM = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "proc",
    "root",
    "sbin",
    "sys",
    "usr",
    "var/lib/kubelet",
)
"""Folders of a node in which, at any depth, a run has no business."""

_SHARED = ("", "home", "media", "mnt", "opt", "run", "srv", "tmp", "var", "var/cache", "var/lib", "var/log", "var/tmp")
"""Folders of a node in which a run may have one of its own."""

_MAX_LABEL_LENGTH = 63


def cluster_problems(spec: SeeleRunSpec) -> Iterator[str]:
    """What works on one machine and not in a cluster."""
    for rule in (_one_folder, _node_folders, _users, _devices, _queue):
        yield from rule(spec)


def _one_folder(spec: SeeleRunSpec) -> Iterator[str]:
    """A folder of each pod's own, where all should share one."""
    pods = spec.trainer.replicas + spec.rollout.servers
    if pods > 1 and spec.storage.run.empty_dir is not None:
        yield (
            f"spec.storage.run.emptyDir: belongs to one pod, and this run has {pods} that share its folder; use a "
            "persistentVolumeClaim or persistentVolumeClaimTemplate that is ReadWriteMany, or a hostPath on a cluster "
            "of one node"
        )


def _node_folders(spec: SeeleRunSpec) -> Iterator[str]:
    """Folders that belong to the node: a run's folder is given to its user."""
    for field, volume in (("run", spec.storage.run), ("huggingFaceCache", spec.storage.hugging_face_cache)):
        if volume is None or volume.host_path is None:
            continue
        path = "/".join(part for part in volume.host_path.path.split("/") if part not in {"", "."})
        if path in _SHARED or any(f"{path}/".startswith(f"{system}/") for system in _SYSTEM):
            yield (
                f"spec.storage.{field}.hostPath.path: {shown(volume.host_path.path)} belongs to the node itself, and "
                "would be given to the run's user; use a folder of its own, such as /var/lib/seele"
            )


def _users(spec: SeeleRunSpec) -> Iterator[str]:
    """One folder, and two users who cannot write each other's files in it."""
    if spec.storage.run.host_path is None or not spec.rollout.servers:
        return
    trainer, rollout = (_user(pods.pod_template) for pods in (spec.trainer, spec.rollout))
    if trainer != rollout:
        place = yaml_path(("spec", "rollout", "podTemplate", "spec", "securityContext", "runAsUser"))
        yield (
            f"{place}: {shown(rollout)} is not the trainer's, {shown(trainer)}, and both write to the run's hostPath; "
            "use the same for both"
        )


def _user(template: FreeObject) -> object:
    inner: object = template
    for key in ("spec", "securityContext", "runAsUser"):
        inner = inner.get(key) if isinstance(inner, Mapping) else None
    return inner


def _devices(spec: SeeleRunSpec) -> Iterator[str]:
    """Requests of devices, which a container gets for itself or not at all."""
    for field, resources in (("trainer", spec.trainer.resources), ("rollout", spec.rollout.resources)):
        for name, requested in resources.requests.items():
            limit = resources.limits.get(name)
            device = ("/" in name and "kubernetes.io/" not in name) or name.startswith("hugepages-")
            if not device or (limit is not None and amount(limit) == amount(requested)):
                continue
            place = yaml_path(("spec", field, "resources", "requests", name))
            have = "and has no limit" if limit is None else f"and its limit is {limit}"
            yield f"{place}: {requested} cannot be shared with other pods, {have}; give the limit alone, which requests it"


def _queue(spec: SeeleRunSpec) -> Iterator[str]:
    """Names of queues that pods cannot be labelled with."""
    name = spec.scheduling.queue_name
    if spec.scheduling.gang == "kueue" and name is not None and len(name) > _MAX_LABEL_LENGTH:
        yield (
            f"spec.scheduling.queueName: has {len(name)} characters, and pods carry it as a label; name a LocalQueue "
            f"of at most {_MAX_LABEL_LENGTH}"
        )


def _gang(spec: SeeleRunSpec) -> Iterator[str]:
    scheduling = spec.scheduling
    if scheduling.gang == "kueue" and scheduling.queue_name is None:
        yield "spec.scheduling.queueName: is missing, and gang kueue needs it; name a LocalQueue of the run's namespace"
    if scheduling.gang in {"none", "coscheduling"} and scheduling.queue_name is not None:
        yield (
            f"spec.scheduling.queueName: {shown(scheduling.queue_name)} has no effect with gang {scheduling.gang}; "
            "remove it, or use gang: kueue or volcano"
        )
