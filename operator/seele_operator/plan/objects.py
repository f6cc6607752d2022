"""What a run is made of: (SeeleRun, attempt) to Kubernetes objects as plain dicts. Pure; the operator makes them, and
`seele run` executes the very same pods on one machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seele_operator.api.seelerun import API_VERSION, KIND, SeeleRun
from seele_operator.api.yaml_files import yaml_text
from seele_operator.plan import names
from seele_operator.plan.gangs import gang_of
from seele_operator.plan.names import Manifest, Role
from seele_operator.plan.pods import rollout_pod, trainer_pod
from seele_operator.plan.policies import DisruptionBudgetVersion, disruption_budget, network_policies
from seele_operator.plan.storage import kept_claims, owned_claims


@dataclass(frozen=True)
class ClusterFeatures:
    """What differs between the versions of Kubernetes that are supported."""

    pod_disruption_budget: DisruptionBudgetVersion = "policy/v1"


NEWEST = ClusterFeatures()
"""What current releases have."""


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
    return run.spec.rollout.servers


def plan(run: SeeleRun, attempt: int, cluster: ClusterFeatures = NEWEST) -> list[Manifest]:
    """All child objects of `run` in its attempt number `attempt` (from 1), in the order in which they are made."""
    return [*support_objects(run, attempt, cluster), *pods(run, attempt).values()]


def support_objects(run: SeeleRun, attempt: int, cluster: ClusterFeatures = NEWEST) -> list[Manifest]:
    """Everything but the pods: what they read, how they are found, protected and scheduled, and what they write to."""
    roles: list[Role] = ["trainer", "rollout"] if rollout_replicas(run) else ["trainer"]
    kept = [_placed(run, claim) for claim in kept_claims(run)]
    owned = [
        *owned_claims(run),
        _config_map(run),
        *(_service(run, role) for role in roles),
        *network_policies(run),
        disruption_budget(run, cluster.pod_disruption_budget),
    ]
    return [*kept, *_owned(run, owned), *gang_objects(run)]


def gang_objects(run: SeeleRun) -> list[Manifest]:
    """The gang scheduler's group, to be deleted when the pods are gone for good: it would hold quota for them."""
    return _owned(run, gang_of(run).objects(run))


def pods(run: SeeleRun, attempt: int) -> dict[str, Manifest]:
    """The pods of an attempt by name: first all trainers, then all rollout servers."""
    where = endpoints(run)
    trainers = [
        trainer_pod(run, attempt, index, where.rendezvous, where.rollout) for index in range(run.spec.trainer.replicas)
    ]
    rollouts = [rollout_pod(run, attempt, index) for index in range(len(where.rollout))]
    return {manifest["metadata"]["name"]: manifest for manifest in _owned(run, [*trainers, *rollouts])}


def pod_names(run: SeeleRun) -> tuple[str, ...]:
    """The names of all pods of an attempt, in the order of `pods`."""
    counts: dict[Role, int] = {"trainer": run.spec.trainer.replicas, "rollout": rollout_replicas(run)}
    return tuple(names.pod(run.metadata.name, role, index) for role in counts for index in range(counts[role]))


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
            "labels": names.labels(name),
        },
        "data": {
            names.CONFIG_KEY: config_text(run),
            names.ROLLOUT_URLS_KEY: "".join(f"{url}\n" for url in endpoints(run).rollout),
        },
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
            "labels": names.labels(name, role),
        },
        "spec": {
            "clusterIP": "None",
            # Ranks find each other while they start, before any of them is ready.
            "publishNotReadyAddresses": True,
            "selector": names.selector(name, role),
            # Without the protocol, the API server of 1.20 cannot tell the ports apart when the service is applied.
            "ports": [
                {"name": port, "protocol": "TCP", "port": number, "targetPort": port} for port, number in ports.items()
            ],
        },
    }


def owner_reference(name: str, uid: str) -> Manifest:
    """What makes the run of this name and uid the controller of an object, which goes when the run goes."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _placed(run: SeeleRun, manifest: Manifest) -> Manifest:
    """An object in the run's namespace."""
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": run.metadata.namespace}}


def _owned(run: SeeleRun, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Objects in the run's namespace and, where the run lives in a cluster, under its ownership."""
    placed = [_placed(run, manifest) for manifest in manifests]
    if run.metadata.uid is not None:
        for manifest in placed:
            manifest["metadata"]["ownerReferences"] = [owner_reference(run.metadata.name, run.metadata.uid)]
    return placed
