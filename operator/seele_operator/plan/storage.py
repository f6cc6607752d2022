"""What is mounted into a run's containers, and from where."""

from __future__ import annotations

from dataclasses import dataclass

from seele_operator.api.seelerun import PersistentVolumeClaimTemplate, SeeleRun, Volume
from seele_operator.plan import names
from seele_operator.plan.names import Manifest


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


def kept_claims(run: SeeleRun) -> list[Manifest]:
    """Claims that outlive the run: they get no owner, so that deleting a run never deletes checkpoints."""
    return [_claim(run, name, template) for name, template in _templates(run).items() if template.retention == "Retain"]


def owned_claims(run: SeeleRun) -> list[Manifest]:
    """Claims that go with the run."""
    return [_claim(run, name, template) for name, template in _templates(run).items() if template.retention == "Delete"]


def _templates(run: SeeleRun) -> dict[str, PersistentVolumeClaimTemplate]:
    templates = {name: shared.volume.persistent_volume_claim_template for name, shared in shared_volumes(run).items()}
    return {name: template for name, template in templates.items() if template is not None}


def _claim(run: SeeleRun, volume: str, template: PersistentVolumeClaimTemplate) -> Manifest:
    storage_class = template.storage_class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.claim(run.metadata.name, volume),
            "labels": names.labels(run.metadata.name),
        },
        "spec": {
            **({} if storage_class is None else {"storageClassName": storage_class}),
            "accessModes": list(template.access_modes),
            "resources": {"requests": {"storage": template.size}},
        },
    }
