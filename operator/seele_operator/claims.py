"""Claims of storage that are made for a run."""

from __future__ import annotations

from seele_operator import names
from seele_operator.names import Manifest
from seele_operator.spec import PersistentVolumeClaimTemplate, SeeleRun
from seele_operator.volumes import shared_volumes


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
