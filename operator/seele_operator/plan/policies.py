"""What protects a run's pods: who may reach them, and that nobody evicts trainers who could wait."""

from __future__ import annotations

from typing import Literal

from seele_operator.api.seelerun import SeeleRun
from seele_operator.plan import names
from seele_operator.plan.names import Manifest, Role

DisruptionBudgetVersion = Literal["policy/v1", "policy/v1beta1"]
"""Versions of PodDisruptionBudget: policy/v1 from Kubernetes 1.21 on, policy/v1beta1 before 1.25."""


def network_policies(run: SeeleRun) -> list[Manifest]:
    """Who may reach the run's pods.

    A rollout server answers to whoever reaches it: it pauses, takes other weights, forgets its cache. So only the run's
    own trainers do. Whoever else should, such as Prometheus, needs a further policy: what any of them allows is allowed.
    """
    trainers = [{"podSelector": {"matchLabels": names.selector(run.metadata.name, "trainer")}}]
    metrics, http = ([{"protocol": "TCP", "port": port}] for port in (names.METRICS_PORT, names.ROLLOUT_PORT))
    # Trainers reach each other on any port: collectives choose theirs as they go.
    policies = [_network_policy(run, "trainer", [{"from": trainers}, {"ports": metrics}])]
    if run.spec.rollout.servers:
        policies.append(_network_policy(run, "rollout", [{"from": trainers, "ports": http}]))
    return policies


def disruption_budget(run: SeeleRun, version: DisruptionBudgetVersion) -> Manifest:
    """The budget of the trainers: without one of them the others start anew from the last checkpoint."""
    name = run.metadata.name
    # A budget of none where there should be none: the switch may change while the run goes on.
    protected = run.spec.run_policy.pod_disruption_budget
    return {
        "apiVersion": version,
        "kind": "PodDisruptionBudget",
        "metadata": {"name": names.disruption_budget(name), "labels": names.labels(name, "trainer")},
        "spec": {
            # A count of pods: shares, and how many may be missing, need a controller that can be scaled.
            "minAvailable": run.spec.trainer.replicas if protected else 0,
            "selector": {"matchLabels": names.selector(name, "trainer")},
        },
    }


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
