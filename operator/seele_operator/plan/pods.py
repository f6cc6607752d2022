"""The pods of a run as plain dicts: trainers (Seele itself) and rollout servers (stock vLLM)."""

from collections.abc import Mapping, Sequence
from typing import Any

from seele_operator.api.pod_template import merge
from seele_operator.api.seelerun import EnvironmentVariable, Resources, SeeleRun
from seele_operator.plan import names
from seele_operator.plan.gang_schedulers import gang_scheduler_of
from seele_operator.plan.names import Manifest, Role
from seele_operator.plan.probes import driver_life, server_life
from seele_operator.plan.storage import mounts, node_folders, volumes
from seele_trainer.rollout import vllm_command

USER = 1000
"""User and group of all processes: none of them is root."""
HOST = "kubernetes.io/hostname"
"""The label that identifies a node."""
MODEL_NAME = "seele"
"""The name under which a rollout server serves its model."""
TERMINATION_MESSAGE_POLICY = "FallbackToLogsOnError"
"""Puts the end of a failed container's log into the pod's status, so that the operator can say why it failed."""


def trainer_pod(run: SeeleRun, attempt: int, index: int, rendezvous: str, rollout_urls: Sequence[str]) -> Manifest:
    """Trainer pod `index`."""
    trainer = run.spec.trainer
    container = {
        "name": "trainer",
        "image": trainer.image,
        "imagePullPolicy": trainer.image_pull_policy,
        "command": ["seele", "train", "--config", f"{names.CONFIG_FOLDER}/{names.CONFIG_KEY}"],
        "env": _environment(
            {
                "SEELE_RUN_DIR": names.RUN_FOLDER,
                "SEELE_ROLLOUT_URLS": ",".join(rollout_urls),
                "SEELE_ROLLOUT_URLS_FILE": f"{names.CONFIG_FOLDER}/{names.ROLLOUT_URLS_KEY}",
                "SEELE_RENDEZVOUS": rendezvous,
                "SEELE_NODE_RANK": str(index),
                "SEELE_BIND_HOST": "0.0.0.0",
                "SEELE_HTTP_PORT": str(names.METRICS_PORT),
                "SEELE_ATTEMPT": str(attempt),
                "SEELE_GRACE_SECONDS": str(run.spec.run_policy.termination_grace_period_seconds),
                # Every run counts its attempts from 1: the uid distinguishes a recreated run with an old folder from an
                # earlier attempt of the old run.
                **({"SEELE_RUN_UID": run.metadata.uid} if run.metadata.uid else {}),
                **_common_environment(run),
            },
            trainer.env,
            _hugging_face_token(run),
        ),
        "ports": [
            {"name": "metrics", "containerPort": names.METRICS_PORT},
            {"name": "rendezvous", "containerPort": names.RENDEZVOUS_PORT},
        ],
        **(driver_life() if index == 0 else {}),
        **_shape(run, trainer.resources),
    }
    return _pod(run, "trainer", attempt, index, {"containers": [container]}, trainer.pod_template)


def rollout_pod(run: SeeleRun, attempt: int, index: int) -> Manifest:
    """Rollout server `index`: an init container writes the initial model, then stock vLLM serves it."""
    rollout = run.spec.rollout
    prepare = {
        "name": "prepare-model",
        "image": run.spec.trainer.image,
        "imagePullPolicy": run.spec.trainer.image_pull_policy,
        "command": ["seele", "prepare-model"],
        "args": ["--config", f"{names.CONFIG_FOLDER}/{names.CONFIG_KEY}", "--out", names.INITIAL_WEIGHTS],
        "env": _environment(
            {"SEELE_RUN_DIR": names.RUN_FOLDER, "SEELE_ATTEMPT": str(attempt), **_common_environment(run)},
            run.spec.trainer.env,
            _hugging_face_token(run),
        ),
        **_shape(run, rollout.resources),
    }
    serve = {
        "name": "rollout",
        "image": rollout.image,
        "imagePullPolicy": rollout.image_pull_policy,
        **_serve(run),
        "env": _environment(
            {
                "SEELE_BIND_HOST": "0.0.0.0",
                "SEELE_HTTP_PORT": str(names.ROLLOUT_PORT),
                **vllm_command.ENVIRONMENT,
                "HF_HUB_OFFLINE": "1",
                **_common_environment(run),
            },
            rollout.env,
        ),
        "ports": [{"name": "http", "containerPort": names.ROLLOUT_PORT}],
        **server_life(run),
        **_shape(run, rollout.resources),
    }
    spec = {"initContainers": [prepare], "containers": [serve]}
    return _pod(run, "rollout", attempt, index, spec, rollout.pod_template)


def _serve(run: SeeleRun) -> Manifest:
    """Command and arguments of a rollout server."""
    rollout = run.spec.rollout
    # A pod that requests a device, such as nvidia.com/gpu, has an image for that device, in which `vllm serve` works. Any
    # other image may be the one for CPUs, in which only the module starts.
    on_device = any("/" in name for name in (*rollout.resources.requests, *rollout.resources.limits))
    command = vllm_command.SERVE if on_device else vllm_command.SERVER_MODULE
    arguments = vllm_command.server_arguments(
        command,
        names.INITIAL_WEIGHTS,
        MODEL_NAME,
        host="$(SEELE_BIND_HOST)",
        port="$(SEELE_HTTP_PORT)",
        dtype=run.spec.model.dtype,
        max_model_len=rollout.max_model_len or run.spec.model.context_length,
        tensor_parallel_size=rollout.tensor_parallel_size,
        trust_remote_code=run.spec.model.trust_remote_code,
        engine_args=rollout.engine_args,
    )
    return {"command": list(command), "args": arguments}


def _pod(run: SeeleRun, role: Role, attempt: int, index: int, parts: Manifest, template: Mapping[str, Any]) -> Manifest:
    """A pod with the containers in `parts`. The user's template is merged into it, but cannot change its identity."""
    name = run.metadata.name
    gang = gang_scheduler_of(run).membership(run, attempt)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {},
        "spec": {
            "subdomain": names.service(name, role),
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": run.spec.run_policy.termination_grace_period_seconds,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            **_prepared(run, parts, template),
            "volumes": volumes(run),
            **_scheduling(run),
            **({} if gang.scheduler is None else {"schedulerName": gang.scheduler}),
        },
    }
    identity = {
        "metadata": {
            "name": names.pod(name, role, index),
            "labels": {
                **names.labels(name, role),
                names.INDEX_LABEL: str(index),
                names.ATTEMPT_LABEL: str(attempt),
                **gang.labels,
            },
            **({"annotations": dict(gang.annotations)} if gang.annotations else {}),
        },
        "spec": {"hostname": names.pod(name, role, index), "restartPolicy": "Never"},
    }
    return merge(merge(pod, template), identity)


def _prepared(run: SeeleRun, parts: Manifest, template: Mapping[str, Any]) -> Manifest:
    """`parts` with an init container that gives hostPath folders, which the kubelet creates for root, to the pod's user."""
    folders = node_folders(run)
    if not folders:
        return parts
    security = template.get("spec", {}).get("securityContext") or {}
    user, group = (security.get(field, USER) for field in ("runAsUser", "runAsGroup"))
    prepare = {
        "name": names.PREPARE_FOLDER,
        "image": run.spec.trainer.image,
        "imagePullPolicy": run.spec.trainer.image_pull_policy,
        # Not recursively: a cache may be large, and its files were written by this user anyway.
        "command": ["chown", f"{user}:{group}", *folders],
        "resources": parts["containers"][0]["resources"],
        "terminationMessagePolicy": TERMINATION_MESSAGE_POLICY,
        "securityContext": {
            "runAsNonRoot": False,
            "runAsUser": 0,
            "runAsGroup": 0,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]},
        },
        "volumeMounts": [mount for mount in mounts(run) if mount["mountPath"] in folders],
    }
    return {**parts, "initContainers": [prepare, *parts.get("initContainers", ())]}


def _shape(run: SeeleRun, resources: Resources) -> Manifest:
    """Resources, mounts, security context and termination message policy of a container."""
    return {
        "resources": {
            kind: dict(amounts)
            for kind, amounts in (("requests", resources.requests), ("limits", resources.limits))
            if amounts
        },
        "terminationMessagePolicy": TERMINATION_MESSAGE_POLICY,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts(run),
    }


def _scheduling(run: SeeleRun) -> Manifest:
    scheduling = run.spec.scheduling
    fields = {
        "nodeSelector": dict(scheduling.node_selector),
        "tolerations": [dict(toleration) for toleration in scheduling.tolerations],
        "affinity": _affinity(run),
        "priorityClassName": scheduling.priority_class_name,
        "imagePullSecrets": [{"name": secret.name} for secret in scheduling.image_pull_secrets],
        "serviceAccountName": scheduling.service_account_name,
    }
    return {field: value for field, value in fields.items() if value}


def _affinity(run: SeeleRun) -> Manifest:
    """The user's affinity; if the run's folder is on one node, the pods also prefer to share a node.

    It is only a preference, because a hostPath may be a folder that all nodes mount from the same place.
    """
    given = dict(run.spec.scheduling.affinity)
    volume = run.spec.storage.run
    template = volume.persistent_volume_claim_template
    on_one_node = volume.host_path is not None or (
        template is not None and "ReadWriteMany" not in template.access_modes
    )
    if not on_one_node or "podAffinity" in given:
        return given
    term = {"labelSelector": {"matchLabels": {names.RUN_LABEL: run.metadata.name}}, "topologyKey": HOST}
    preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": term}]}
    return {**given, "podAffinity": preferred}


def _common_environment(run: SeeleRun) -> dict[str, str]:
    own_cache = run.spec.storage.hugging_face_cache is not None
    return {
        "HF_HOME": names.HUGGING_FACE_FOLDER if own_cache else f"{names.RUN_FOLDER}/huggingface",
        # The root file system is read-only, and the user has no entry in /etc/passwd: caches need a writable home, and
        # some libraries a user name.
        "HOME": "/tmp",
        "USER": MODEL_NAME,
        "PYTHONUNBUFFERED": "1",
    }


def _hugging_face_token(run: SeeleRun) -> list[Manifest]:
    secret = run.spec.storage.hugging_face_token_secret
    if secret is None:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": secret.name, "key": secret.key}}}]


def _environment(
    own: Mapping[str, str], given: Sequence[EnvironmentVariable], referenced: Sequence[Manifest] = ()
) -> list[Manifest]:
    """A container's environment with unique names: our values, overridden by the user's."""
    values = {**own, **{variable.name: variable.value for variable in given}}
    taken = {entry["name"] for entry in referenced}
    return [*({"name": name, "value": value} for name, value in values.items() if name not in taken), *referenced]
