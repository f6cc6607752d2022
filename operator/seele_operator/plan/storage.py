"""The volumes of a run: mounts, sources and claims."""

from seele_operator.api.seelerun import PersistentVolumeClaimTemplate, SeeleRun, Volume
from seele_operator.plan import names
from seele_operator.plan.names import Manifest


def _shared_volumes(run: SeeleRun) -> dict[str, tuple[str, Volume]]:
    """The volumes in the run's spec.storage by name, each with its mount path."""
    storage = run.spec.storage
    shared = {"run": (names.RUN_FOLDER, storage.run)}
    if storage.hugging_face_cache is not None:
        shared["huggingface"] = (names.HUGGING_FACE_FOLDER, storage.hugging_face_cache)
    return shared


def volumes(run: SeeleRun) -> list[Manifest]:
    """The volumes of each pod."""
    return [
        *({"name": name, **_source(run, name, volume)} for name, (_, volume) in _shared_volumes(run).items()),
        {"name": "config", "configMap": {"name": names.config_map(run.metadata.name)}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": run.spec.storage.shared_memory}},
        {"name": "temporary", "emptyDir": {}},
    ]


def mounts(run: SeeleRun) -> list[Manifest]:
    """The mounts of each container."""
    return [
        *({"name": name, "mountPath": folder} for name, (folder, _) in _shared_volumes(run).items()),
        # A folder, because single mounted files would not follow changes of the config map.
        {"name": "config", "mountPath": names.CONFIG_FOLDER, "readOnly": True},
        {"name": "shared-memory", "mountPath": "/dev/shm"},
        {"name": "temporary", "mountPath": "/tmp"},
    ]


def node_folders(run: SeeleRun) -> list[str]:
    """The mount paths of hostPath volumes."""
    return [folder for folder, volume in _shared_volumes(run).values() if volume.host_path is not None]


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
    """Claims that outlive the run. They get no owner, so that deleting the run does not delete checkpoints."""
    return [_claim(run, name, template) for name, template in _templates(run).items() if template.retention == "Retain"]


def owned_claims(run: SeeleRun) -> list[Manifest]:
    """Claims that are deleted with the run."""
    return [_claim(run, name, template) for name, template in _templates(run).items() if template.retention == "Delete"]


def _templates(run: SeeleRun) -> dict[str, PersistentVolumeClaimTemplate]:
    templates = {name: volume.persistent_volume_claim_template for name, (_, volume) in _shared_volumes(run).items()}
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
