"""Names, labels and ports of what a run is made of. Everything that looks for a run's objects takes them from here."""

from __future__ import annotations

from typing import Any, Literal

Manifest = dict[str, Any]
"""A Kubernetes object as plain data."""

Role = Literal["trainer", "rollout"]

APP_LABEL = "app.kubernetes.io/name"
RUN_LABEL = "seele.dev/run"
ROLE_LABEL = "seele.dev/role"
INDEX_LABEL = "seele.dev/index"
ATTEMPT_LABEL = "seele.dev/attempt"

METRICS_PORT = 9400
"""Trainer: /metrics, /progress, /healthz."""
RENDEZVOUS_PORT = 29500
"""Trainer 0: where the gang's processes find each other."""
ROLLOUT_PORT = 8000
"""Rollout server: vLLM's HTTP API."""

RUN_FOLDER = "/seele/run"
"""Where a run's shared folder is mounted in its pods."""
CONFIG_FOLDER = "/etc/seele"
"""Where the run's config map is mounted in its pods."""
CONFIG_KEY = "config.yaml"
"""File of the trainer's configuration, in the config map and in the run's folder."""
ROLLOUT_URLS_KEY = "rollout-urls"
"""File of the addresses of the rollout servers, one on a line, in the config map: it follows the number of servers."""
HUGGING_FACE_FOLDER = "/seele/huggingface"
"""Where the cache of models and data sets is mounted, if it has a volume of its own."""
INITIAL_WEIGHTS = f"{RUN_FOLDER}/weights/initial"
"""The copy of the model that rollout servers start from."""
PREPARE_FOLDER = "prepare-folder"
"""Init container that hands folders of the node to the user of the pod's processes; nothing to do on one machine."""


def selector(run: str, role: Role) -> dict[str, str]:
    """Labels by which the pods of one role are found."""
    return {RUN_LABEL: run, ROLE_LABEL: role}


def labels(run: str, role: Role | None = None) -> dict[str, str]:
    """Labels of an object of a run, of one role where it belongs to one."""
    return {APP_LABEL: "seele", RUN_LABEL: run, **({} if role is None else {ROLE_LABEL: role})}


def config_map(run: str) -> str:
    """Name of the config map."""
    return f"{run}-config"


def service(run: str, role: Role) -> str:
    """Name of the headless service of one role."""
    return f"{run}-{role}"


def pod(run: str, role: Role, index: int) -> str:
    """Name of a pod, which is its host name too."""
    return f"{run}-{role}-{index}"


def host(run: str, role: Role, index: int) -> str:
    """Address of a pod, as other pods of the namespace resolve it."""
    return f"{pod(run, role, index)}.{service(run, role)}"


def claim(run: str, volume: str) -> str:
    """Name of the claim that is made for a volume of the run."""
    return f"{run}-{volume}"


def pod_group(run: str) -> str:
    """Name of the gang scheduler's group of the run's pods."""
    return run


def network_policy(run: str, role: Role) -> str:
    """Name of the policy that says who may reach the pods of one role."""
    return f"{run}-{role}"


def disruption_budget(run: str) -> str:
    """Name of the budget that keeps the trainers where they are."""
    return f"{run}-trainer"
