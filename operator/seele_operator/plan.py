"""What a run is made of: (SeeleRun, attempt) to Kubernetes objects as plain dicts. Pure; the operator applies them, and
`seele run` executes the very same pods on one machine."""

from __future__ import annotations

from dataclasses import dataclass

from seele_operator import names
from seele_operator.names import Manifest, Role
from seele_operator.pods import rollout_pod, trainer_pod
from seele_operator.spec import API_VERSION, KIND, SeeleRun
from seele_operator.yaml_text import yaml_text


@dataclass(frozen=True)
class Endpoints:
    """Where a run's pods listen, as seen from the run's own namespace."""

    rendezvous: str
    """host:port of trainer 0, where the gang meets."""
    trainer: str
    """URL of trainer 0: /metrics, /progress, /healthz."""
    rollout: tuple[str, ...]
    """URLs of the rollout servers; none where completions are sampled inside the trainer."""


def endpoints(run: SeeleRun) -> Endpoints:
    """Addresses of the pods of `run`."""
    name = run.metadata.name
    first = names.host(name, "trainer", 0)
    return Endpoints(
        rendezvous=f"{first}:{names.RENDEZVOUS_PORT}",
        trainer=f"http://{first}:{names.METRICS_PORT}",
        rollout=tuple(
            f"http://{names.host(name, 'rollout', index)}:{names.ROLLOUT_PORT}"
            for index in range(rollout_replicas(run))
        ),
    )


def rollout_replicas(run: SeeleRun) -> int:
    """Rollout pods of `run`."""
    return run.spec.rollout.replicas if run.spec.rollout.engine == "vllm" else 0


def plan(run: SeeleRun, attempt: int) -> list[Manifest]:
    """All child objects of `run` in its attempt number `attempt` (from 1): config map, services and pods."""
    where = endpoints(run)
    roles: list[Role] = ["trainer", "rollout"] if where.rollout else ["trainer"]
    objects = [_config_map(run)]
    objects += [_service(run, role) for role in roles]
    objects += [
        trainer_pod(run, attempt, index, where.rendezvous, where.rollout) for index in range(run.spec.trainer.replicas)
    ]
    objects += [rollout_pod(run, attempt, index) for index in range(len(where.rollout))]
    return [_owned(run, manifest) for manifest in objects]


def config_text(run: SeeleRun) -> str:
    """The trainer's configuration as YAML, every default written out."""
    config = run.spec.trainer_config(run.metadata.name)
    return yaml_text(config.model_dump(mode="json", by_alias=True))


def _config_map(run: SeeleRun) -> Manifest:
    name = run.metadata.name
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": names.config_map(name),
            "labels": {names.APP_LABEL: "seele", names.RUN_LABEL: name},
        },
        "data": {names.CONFIG_KEY: config_text(run)},
    }


def _service(run: SeeleRun, role: Role) -> Manifest:
    name = run.metadata.name
    ports = (
        {"metrics": names.METRICS_PORT, "rendezvous": names.RENDEZVOUS_PORT}
        if role == "trainer"
        else {"http": names.ROLLOUT_PORT}
    )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.service(name, role),
            "labels": {names.APP_LABEL: "seele", names.RUN_LABEL: name, names.ROLE_LABEL: role},
        },
        "spec": {
            "clusterIP": "None",
            # Ranks find each other while they start, before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": {names.RUN_LABEL: name, names.ROLE_LABEL: role},
            "ports": [{"name": port, "port": number, "targetPort": port} for port, number in ports.items()],
        },
    }


def _owned(run: SeeleRun, manifest: Manifest) -> Manifest:
    """Put an object into the run's namespace and, where the run lives in a cluster, under its ownership."""
    metadata = {**manifest["metadata"], "namespace": run.metadata.namespace}
    if run.metadata.uid is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "name": run.metadata.name,
                "uid": run.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ]
    return {**manifest, "metadata": metadata}
