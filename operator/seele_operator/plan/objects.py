"""A run's objects: (SeeleRun, attempt) to Kubernetes objects as plain dicts. Pure. The operator creates them, and
`seele run` executes the same pods on a single machine."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from seele_operator.api.seelerun import API_VERSION, KIND, SeeleRun
from seele_operator.api.yaml_files import yaml_text
from seele_operator.plan import names
from seele_operator.plan.gang_schedulers import gang_scheduler_of
from seele_operator.plan.names import Manifest, Role
from seele_operator.plan.pods import rollout_pod, trainer_pod
from seele_operator.plan.storage import kept_claims, owned_claims


@dataclass(frozen=True)
class ClusterFeatures:
    """Differences between the supported versions of Kubernetes."""

    pod_disruption_budget: Literal["policy/v1", "policy/v1beta1"] = "policy/v1"
    """policy/v1 exists from Kubernetes 1.21 on, policy/v1beta1 before 1.25."""


NEWEST = ClusterFeatures()
"""The features of current releases."""


@dataclass(frozen=True)
class Endpoints:
    """The addresses of a run's pods within the run's namespace."""

    rendezvous: str
    """host:port of trainer 0, the gang's rendezvous."""
    trainer: str
    """URL of trainer 0: /metrics, /progress, /healthz."""
    rollout: tuple[str, ...]
    """URLs of the rollout servers; empty if completions are sampled inside the trainer."""


def endpoints(run: SeeleRun) -> Endpoints:
    """Addresses of the pods of `run`."""
    name = run.metadata.name
    first = names.host(name, "trainer", 0)
    return Endpoints(
        rendezvous=f"{first}:{names.RENDEZVOUS_PORT}",
        trainer=f"http://{first}:{names.METRICS_PORT}",
        rollout=tuple(
            f"http://{names.host(name, 'rollout', index)}:{names.ROLLOUT_PORT}"
            for index in range(run.spec.rollout.servers)
        ),
    )


def plan(run: SeeleRun, attempt: int, cluster: ClusterFeatures = NEWEST) -> list[Manifest]:
    """All child objects of `run` in its attempt number `attempt` (from 1), in the order of their creation."""
    return [*support_objects(run, cluster), *pods(run, attempt).values()]


def support_objects(run: SeeleRun, cluster: ClusterFeatures = NEWEST) -> list[Manifest]:
    """All child objects except the pods: claims, config map, services, policies, budget and PodGroup."""
    roles: list[Role] = ["trainer", "rollout"] if run.spec.rollout.servers else ["trainer"]
    kept = [_placed(run, claim) for claim in kept_claims(run)]
    owned = [
        *owned_claims(run),
        _config_map(run),
        *(_service(run, role) for role in roles),
        *_network_policies(run),
        _disruption_budget(run, cluster),
    ]
    return [*kept, *_owned(run, owned), *gang_objects(run)]


def gang_objects(run: SeeleRun) -> list[Manifest]:
    """The gang scheduler's objects; delete them once no more pods are needed, since they would hold quota."""
    return _owned(run, gang_scheduler_of(run).objects(run))


def pods(run: SeeleRun, attempt: int) -> dict[str, Manifest]:
    """The pods of an attempt by name, trainers first."""
    where = endpoints(run)
    trainers = [
        trainer_pod(run, attempt, index, where.rendezvous, where.rollout) for index in range(run.spec.trainer.replicas)
    ]
    rollouts = [rollout_pod(run, attempt, index) for index in range(len(where.rollout))]
    return {manifest["metadata"]["name"]: manifest for manifest in _owned(run, [*trainers, *rollouts])}


def pod_names(run: SeeleRun) -> tuple[str, ...]:
    """The names of all pods of an attempt, in the order of `pods`."""
    counts: dict[Role, int] = {"trainer": run.spec.trainer.replicas, "rollout": run.spec.rollout.servers}
    return tuple(names.pod(run.metadata.name, role, index) for role in counts for index in range(counts[role]))


def config_text(run: SeeleRun) -> str:
    """The trainer's configuration as YAML, including all defaults."""
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
            # Ranks must find each other while they start, before any is ready.
            "publishNotReadyAddresses": True,
            "selector": names.selector(name, role),
            # Without the protocol, Kubernetes 1.20 cannot tell the ports apart in a server-side apply.
            "ports": [
                {"name": port, "protocol": "TCP", "port": number, "targetPort": port} for port, number in ports.items()
            ],
        },
    }


def _network_policies(run: SeeleRun) -> list[Manifest]:
    """Only the run's own trainers may reach a rollout server, since any client can pause it or replace its weights.

    Other clients, such as Prometheus, need another policy: traffic is allowed if any policy allows it.
    """
    trainers = [{"podSelector": {"matchLabels": names.selector(run.metadata.name, "trainer")}}]
    metrics, http = ([{"protocol": "TCP", "port": port}] for port in (names.METRICS_PORT, names.ROLLOUT_PORT))
    # Trainers reach each other on any port, since collectives choose theirs at run time.
    policies = [_network_policy(run, "trainer", [{"from": trainers}, {"ports": metrics}])]
    if run.spec.rollout.servers:
        policies.append(_network_policy(run, "rollout", [{"from": trainers, "ports": http}]))
    return policies


def _network_policy(run: SeeleRun, role: Role, ingress: list[Manifest]) -> Manifest:
    name = run.metadata.name
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": names.network_policy(name, role), "labels": names.labels(name, role)},
        "spec": {
            "podSelector": {"matchLabels": names.selector(name, role)},
            "policyTypes": ["Ingress"],
            "ingress": ingress,
        },
    }


def _disruption_budget(run: SeeleRun, cluster: ClusterFeatures) -> Manifest:
    """The trainers' budget: if one of them is evicted, all restart from the last checkpoint."""
    name = run.metadata.name
    return {
        "apiVersion": cluster.pod_disruption_budget,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": names.disruption_budget(name), "labels": names.labels(name, "trainer")},
        "spec": {
            # An absolute number: percentages and maxUnavailable need a controller with a scale subresource. Without
            # protection it is 0 instead of no budget, because the switch may change during the run.
            "minAvailable": run.spec.trainer.replicas if run.spec.run_policy.pod_disruption_budget else 0,
            "selector": {"matchLabels": names.selector(name, "trainer")},
        },
    }


def owner_reference(name: str, uid: str) -> Manifest:
    """The owner reference that makes a run the controller of an object, so that both are deleted together."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": name,
        "uid": uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def _placed(run: SeeleRun, manifest: Manifest) -> Manifest:
    """The object in the run's namespace."""
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": run.metadata.namespace}}


def _owned(run: SeeleRun, manifests: Iterable[Manifest]) -> list[Manifest]:
    """The objects in the run's namespace, owned by the run if it exists in a cluster."""
    placed = [_placed(run, manifest) for manifest in manifests]
    if run.metadata.uid is not None:
        for manifest in placed:
            manifest["metadata"]["ownerReferences"] = [owner_reference(run.metadata.name, run.metadata.uid)]
    return placed
