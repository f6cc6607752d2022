"""Names, labels, ports and paths of a run's objects, and to which run an existing object belongs.

Code that looks for these objects takes them from here.
"""

from collections.abc import Mapping
from typing import Any, Literal

from seele_operator.api.seelerun import KIND

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
"""Trainer 0: the rendezvous of the gang's processes."""
ROLLOUT_PORT = 8000
"""Rollout server: vLLM's HTTP API."""

RUN_FOLDER = "/seele/run"
"""Where a run's shared folder is mounted in its pods."""
CONFIG_FOLDER = "/etc/seele"
"""Where the run's config map is mounted in its pods."""
CONFIG_KEY = "config.yaml"
"""File with the trainer's configuration, in the config map and in the run's folder."""
ROLLOUT_URLS_KEY = "rollout-urls"
"""File with the URLs of the rollout servers, one per line, in the config map: it is updated when servers are added."""
HUGGING_FACE_FOLDER = "/seele/huggingface"
"""Where the cache of models and data sets is mounted, if it has its own volume."""
INITIAL_WEIGHTS = f"{RUN_FOLDER}/weights/initial"
"""The copy of the model that rollout servers start with."""
PREPARE_FOLDER = "prepare-folder"
"""Init container that gives folders of the node to the pod's user; not needed on a single machine."""


def selector(run: str, role: Role) -> dict[str, str]:
    """Labels that select the pods of one role."""
    return {RUN_LABEL: run, ROLE_LABEL: role}


def labels(run: str, role: Role | None = None) -> dict[str, str]:
    """Labels of a run's object, including the role it belongs to, if any."""
    return {APP_LABEL: "seele", RUN_LABEL: run, **({} if role is None else {ROLE_LABEL: role})}


def config_map(run: str) -> str:
    """Name of the config map."""
    return f"{run}-config"


def service(run: str, role: Role) -> str:
    """Name of the headless service of one role."""
    return f"{run}-{role}"


def pod(run: str, role: Role, index: int) -> str:
    """Name of a pod, which is also its host name."""
    return f"{run}-{role}-{index}"


def host(run: str, role: Role, index: int) -> str:
    """Address of a pod within its namespace."""
    return f"{pod(run, role, index)}.{service(run, role)}"


def claim(run: str, volume: str) -> str:
    """Name of the claim created for a volume of the run."""
    return f"{run}-{volume}"


def pod_group(run: str) -> str:
    """Name of the gang scheduler's PodGroup."""
    return run


def network_policy(run: str, role: Role) -> str:
    """Name of the network policy for the pods of one role."""
    return f"{run}-{role}"


def disruption_budget(run: str) -> str:
    """Name of the trainers' disruption budget."""
    return f"{run}-trainer"


def controller_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of an object's controller; None if it has no controller."""
    owners = body["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def taken(manifest: Manifest, existing: Mapping[str, Any], run_uid: str) -> str | None:
    """Why the existing object must not be changed; None if it belongs to the run or is its orphan."""
    run = manifest["metadata"]["labels"][RUN_LABEL]
    metadata = existing["metadata"]
    controller = controller_of(existing)
    labelled = (metadata.get("labels") or {}).get(RUN_LABEL) == run
    ours = controller["uid"] == run_uid if controller is not None else labelled
    if ours and metadata.get("deletionTimestamp"):
        return "is being deleted; it is created again when it is gone"
    if ours:
        return None
    if controller is None:
        return f"exists, without the label {RUN_LABEL}={run} that would make it this run's"
    if controller["kind"] == KIND and controller["name"] == run:
        return f"is left over from an earlier {KIND} {run}, and should be gone soon"
    return f"exists, and belongs to {controller['kind']} {controller['name']}"
