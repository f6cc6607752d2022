"""What is mounted into a run's containers, and from where."""

from __future__ import annotations

from dataclasses import dataclass

from seele_operator import names
from seele_operator.names import Manifest
from seele_operator.spec import SeeleRun, Volume


@dataclass(frozen=True)
class SharedVolume:
    """A volume with files of more than one pod."""

    folder: str
    """Where it is mounted."""
    volume: Volume


def shared_volumes(run: SeeleRun) -> dict[str, SharedVolume]:
    """The volumes that the run's storage is about, by name."""
    storage = run.spec.storage
    shared = {"run": SharedVolume(names.RUN_FOLDER, storage.run)}
    if storage.hugging_face_cache is not None:
        shared["huggingface"] = SharedVolume(names.HUGGING_FACE_FOLDER, storage.hugging_face_cache)
    return shared


def volumes(run: SeeleRun) -> list[Manifest]:
    """Volumes of each pod."""
    return [
        *({"name": name, **_source(run, name, shared.volume)} for name, shared in shared_volumes(run).items()),
        {"name": "config", "configMap": {"name": names.config_map(run.metadata.name)}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": run.spec.storage.shared_memory}},
        {"name": "temporary", "emptyDir": {}},
    ]


def mounts(run: SeeleRun) -> list[Manifest]:
    """Mounts of each container."""
    return [
        *({"name": name, "mountPath": shared.folder} for name, shared in shared_volumes(run).items()),
        # A folder, not single files: those would never follow a change of the config map.
        {"name": "config", "mountPath": names.CONFIG_FOLDER, "readOnly": True},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "temporary", "mountPath": "/tmp"},
    ]


def node_folders(run: SeeleRun) -> list[str]:
    """Where folders of the node are mounted."""
    return [shared.folder for shared in shared_volumes(run).values() if shared.volume.host_path is not None]


def _source(run: SeeleRun, name: str, volume: Volume) -> Manifest:
    if volume.persistent_volume_claim is not None:
        return {"persistentVolumeClaim": {"claimName": volume.persistent_volume_claim.claim_name}}
    if volume.persistent_volume_claim_template is not None:
        return {"persistentVolumeClaim": {"claimName": names.claim(run.metadata.name, name)}}
    if volume.host_path is not None:
        return {"hostPath": {"path": volume.host_path.path, "type": "DirectoryOrCreate"}}
    limit = volume.empty_dir.size_limit if volume.empty_dir is not None else None
    return {"emptyDir": {} if limit is None else {"sizeLimit": limit}}
