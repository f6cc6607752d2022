"""The SeeleRun: what a user asks for. The CustomResourceDefinition is generated from these models.

Single fields are checked here; rules that tie several fields together are in `checks.py`.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from seele_operator.api.types import (
    AbsolutePath,
    DnsLabel,
    EngineFlag,
    EngineValue,
    EnvironmentName,
    ObjectName,
    Quantity,
    RunName,
)
from seele_trainer import config
from seele_trainer.frozen_model import FrozenModel, PositiveInt

API_VERSION = "seele.dev/v1alpha1"

KIND = "SeeleRun"

LABEL_PREFIX = "seele.dev/"
"""Labels and annotations that the operator sets begin with this."""

NonNegativeInt = Annotated[int, Field(ge=0)]

FreeObject = dict[str, Any]
"""A mapping whose inside belongs to Kubernetes and is not checked against our schema."""


def _at_least_one(entries: tuple[str, ...]) -> tuple[str, ...]:
    if not entries:
        raise ValueError("has no entries; give at least 1")
    return entries


AccessModes = Annotated[
    tuple[Literal["ReadWriteMany", "ReadWriteOnce"], ...],
    AfterValidator(_at_least_one),
    Field(json_schema_extra={"minItems": 1}),
]


class EnvironmentVariable(FrozenModel):
    """An environment variable of a container."""

    name: EnvironmentName
    """Name; those that Seele sets itself are refused."""
    value: str = ""
    """Value, as text."""


class Resources(FrozenModel):
    """What each pod's main container asks for and may use."""

    requests: dict[str, Quantity] = {}
    """Amounts by resource name, such as `cpu: 4`, that the scheduler sets aside."""
    limits: dict[str, Quantity] = {}
    """Amounts by resource name, such as `nvidia.com/gpu: 1`, that may not be exceeded."""


class TrainerSpec(config.Trainer):
    """The gang of trainer pods."""

    image: Annotated[str, Field(min_length=1)] = "ghcr.io/seele-dev/seele:0.1.0"
    """Container image with Seele, PyTorch and DeepSpeed; not used by `seele run`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    resources: Resources = Resources()
    """Resources of each trainer pod."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=200)] = ()
    """Further environment variables, such as those of NCCL."""
    pod_template: FreeObject = {}
    """Overrides merged strategically into each trainer pod: `metadata` and `spec` of a pod template."""


class RolloutSpec(config.RolloutOptions):
    """The rollout servers, and how completions are sampled on them."""

    image: Annotated[str, Field(min_length=1)] = "vllm/vllm-openai:v0.32.0"
    """Container image with vLLM; not used by `seele run`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    resources: Resources = Resources()
    """Resources of each rollout pod."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=200)] = ()
    """Further environment variables."""
    pod_template: FreeObject = {}
    """Overrides merged strategically into each rollout pod: `metadata` and `spec` of a pod template."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs over which each server splits the model."""
    max_model_len: PositiveInt | None = None
    """Longest prompt, hint and completion of a server, in tokens; `model.contextLength` where absent."""
    engine_args: dict[EngineFlag, EngineValue] = {}
    """Further flags of vLLM without leading dashes, such as `gpu-memory-utilization: 0.9`; `true` for a flag alone."""

    @property
    def servers(self) -> int:
        """Rollout pods: none where completions are sampled inside the trainer."""
        return self.replicas if self.engine == "vllm" else 0


class PersistentVolumeClaim(FrozenModel):
    """A claim that exists already."""

    claim_name: ObjectName
    """Name of the claim, in the run's namespace."""


class PersistentVolumeClaimTemplate(FrozenModel):
    """A claim that is made for the run, by the name of the run and the volume, such as `<run>-run`."""

    storage_class_name: ObjectName | None = None
    """Storage class; the cluster's default where absent."""
    access_modes: AccessModes = ("ReadWriteMany",)
    """How nodes may mount it; ReadWriteOnce only where all pods of the run are on one node."""
    size: Quantity
    """Size, such as `500Gi`."""
    retention: Literal["Retain", "Delete"] = "Retain"
    """Whether the claim outlives the SeeleRun, so that a run of the same name goes on from its checkpoints, or not."""


class HostPath(FrozenModel):
    """A folder of the node; for clusters of one node."""

    path: AbsolutePath
    """Absolute path; created where absent."""


class EmptyDir(FrozenModel):
    """A folder that lives and dies with its pod; in `seele run` the run's own folder."""

    size_limit: Quantity | None = None
    """Largest size; the node's own limit where absent."""


class Volume(FrozenModel):
    """Where files are kept: exactly one of the four kinds."""

    persistent_volume_claim: PersistentVolumeClaim | None = None
    """An existing claim; ReadWriteMany where pods are on different nodes."""
    persistent_volume_claim_template: PersistentVolumeClaimTemplate | None = None
    """A claim that is made for the run."""
    host_path: HostPath | None = None
    """A folder of the node."""
    empty_dir: EmptyDir | None = None
    """A folder that is deleted with its pod."""

    @model_validator(mode="after")
    def _one_kind(self) -> Volume:
        kinds = (self.persistent_volume_claim, self.persistent_volume_claim_template, self.host_path, self.empty_dir)
        given = sum(kind is not None for kind in kinds)
        if given != 1:
            raise ValueError(
                f"has {given} kinds; give one of `persistentVolumeClaim`, `persistentVolumeClaimTemplate`, `hostPath` "
                "and `emptyDir`"
            )
        return self


class SecretKey(FrozenModel):
    """One entry of a Secret in the run's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(min_length=1)] = "token"
    """Key in the Secret."""


class Storage(FrozenModel):
    """Volumes of a run."""

    run: Volume = Volume(empty_dir=EmptyDir())
    """The run's folder, shared by all its pods: checkpoints, weights on their way to the servers, metrics, report."""
    hugging_face_cache: Volume | None = None
    """Cache of downloaded models and data sets (HF_HOME); in the run's folder where absent."""
    hugging_face_token_secret: SecretKey | None = None
    """Token for gated models and data sets; none where absent."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm in each pod."""


class RunPolicy(FrozenModel):
    """When a run is started, stopped, restarted, given up and cleaned away."""

    suspend: bool = False
    """Stop all pods and keep the run's folder; set back to false to go on from the last checkpoint."""
    start_deadline_seconds: PositiveInt | None = None
    """Seconds in which all pods of an attempt must be running, or the run fails; no limit where absent."""
    active_deadline_seconds: PositiveInt | None = None
    """Seconds that the run may be active in all, or it fails; no limit where absent."""
    stalled_after_seconds: PositiveInt | None = None
    """Seconds without a new step after which the attempt counts as failed; no limit where absent."""
    backoff_limit: NonNegativeInt = 3
    """Restarts after failures of the run's own processes; one more and the run fails."""
    disruption_limit: NonNegativeInt = 20
    """Restarts after disruptions, such as evictions and lost nodes; one more and the run fails."""
    ttl_seconds_after_finished: NonNegativeInt | None = None
    """Seconds after its end when the SeeleRun is deleted with all its objects; never where absent."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """Pods deleted when the run ends: those still running, all, or none."""
    termination_grace_period_seconds: PositiveInt = 30
    """Seconds between the request to stop and the kill; with 0 Kubernetes would forget pods that may still be at work."""
    pod_disruption_budget: bool = True
    """Keep trainers from evictions that can wait, such as those of a node that is drained."""


class ImagePullSecret(FrozenModel):
    """A Secret with credentials for an image registry."""

    name: ObjectName
    """Name of the Secret, in the run's namespace."""


class Scheduling(FrozenModel):
    """Where pods may run, and under whose account."""

    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[FreeObject, ...] = ()
    """Tolerations, as in a pod."""
    affinity: FreeObject = {}
    """Affinity, as in a pod."""
    priority_class_name: ObjectName | None = None
    """Priority class; the cluster's default where absent."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=64)] = ()
    """Secrets to pull images with."""
    service_account_name: ObjectName | None = None
    """Service account, whose token is never mounted; the namespace's default where absent."""
    gang: Literal["none", "kueue", "volcano", "coscheduling"] = "none"
    """Scheduler through which all pods of the run start together or not at all."""
    queue_name: ObjectName | None = None
    """Queue of Kueue (LocalQueue), which needs one, or of Volcano, whose default it is where absent."""


class SeeleRunSpec(FrozenModel):
    """What is trained, on what, how, and with which pods."""

    model: config.Model
    """The language model to train."""
    dataset: config.Dataset
    """The problems to train on."""
    training: config.Training = config.Training()
    """The optimisation."""
    hints: config.Hints = config.Hints()
    """How hints are chosen."""
    trainer: TrainerSpec = TrainerSpec()
    """The gang of trainer pods."""
    rollout: RolloutSpec = RolloutSpec()
    """The rollout servers, and how completions are sampled."""
    verifier: config.Verifier = config.Verifier()
    """How completions are checked."""
    evaluation: config.Evaluation = config.Evaluation()
    """Held-out evaluation, without hints."""
    checkpoints: config.Checkpoints = config.Checkpoints()
    """When the whole state of the run is saved."""
    observability: config.Observability = config.Observability()
    """Where metrics go, besides Prometheus and the run's folder."""
    storage: Storage = Storage()
    """Volumes."""
    run_policy: RunPolicy = RunPolicy()
    """Deadlines, restarts, suspension and clean-up."""
    scheduling: Scheduling = Scheduling()
    """Where pods may run."""

    def trainer_config(self, name: str) -> config.TrainerConfig:
        """What the trainer pods of the run `name` read as config.yaml: this spec without what only pods are made of."""
        shared = set(config.TrainerConfig.model_fields) - {"name", "trainer", "rollout"}
        return config.TrainerConfig(
            name=name,
            trainer=config.Trainer(**_inherited(self.trainer, config.Trainer)),
            rollout=config.RolloutOptions(**_inherited(self.rollout, config.RolloutOptions)),
            **{section: getattr(self, section) for section in shared},
        )


def _inherited(section: FrozenModel, base: type[FrozenModel]) -> dict[str, Any]:
    return {field: getattr(section, field) for field in base.model_fields}


class Metadata(FrozenModel):
    """The part of a Kubernetes object's metadata that Seele reads; what else the API server adds is let through."""

    model_config = ConfigDict(extra="ignore")

    name: RunName
    """Name of the run: a DNS label of at most 40 characters."""
    namespace: DnsLabel = "default"
    """Namespace of the run and of all its objects."""
    labels: dict[str, str] = {}
    """Labels of the SeeleRun."""
    annotations: dict[str, str] = {}
    """Annotations of the SeeleRun."""
    uid: str | None = None
    """Identifier that the API server gave the run; absent outside a cluster."""


class SeeleRun(FrozenModel):
    """A training run, as a user writes it in a file and as the API server stores it."""

    api_version: Literal["seele.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["SeeleRun"]
    """Kind of object."""
    metadata: Metadata
    """Name and labels."""
    spec: SeeleRunSpec
    """What is asked for."""
    status: FreeObject = {}
    """Written by the operator, never read from a file."""


GROUP, VERSION = API_VERSION.split("/")

PLURAL = "seeleruns"
