"""The SeeleRun: what a user requests. The CustomResourceDefinition is generated from these models.

They check single fields; validation/rules checks combinations of fields.
"""

# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
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
from seele_trainer.frozen_model import FrozenModel, NonNegativeInt, PositiveInt

API_VERSION = "seele.dev/v1alpha1"

KIND = "SeeleRun"

LABEL_PREFIX = "seele.dev/"
"""Prefix of the labels and annotations that the operator sets."""

FreeObject = dict[str, Any]
"""A mapping of Kubernetes' own fields, which our schema does not check."""


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
    """Name. The variables that Seele sets itself are refused."""
    value: str = ""
    """Value as text."""


class Resources(FrozenModel):
    """Resources of the main container of each pod."""

    requests: dict[str, Quantity] = {}
    """Amounts by resource name, such as `cpu: 4`, that the scheduler reserves."""
    limits: dict[str, Quantity] = {}
    """Amounts by resource name, such as `nvidia.com/gpu: 1`, that must not be exceeded."""


class TrainerSpec(config.Trainer):
    """The gang of trainer pods."""

    image: Annotated[str, Field(min_length=1)] = "ghcr.io/seele-dev/seele:0.1.0"
    """Container image with Seele, PyTorch and DeepSpeed. Not used by `seele run`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    resources: Resources = Resources()
    """Resources of each trainer pod."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=200)] = ()
    """Additional environment variables, such as those of NCCL."""
    pod_template: FreeObject = {}
    """Strategic merge patch for each trainer pod: `metadata` and `spec` of a pod template."""


class RolloutSpec(config.RolloutOptions):
    """The rollout servers, and how they sample completions."""

    image: Annotated[str, Field(min_length=1)] = "vllm/vllm-openai:v0.32.0"
    """Container image with vLLM. Not used by `seele run`."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When the image is pulled."""
    resources: Resources = Resources()
    """Resources of each rollout pod."""
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=200)] = ()
    """Additional environment variables."""
    pod_template: FreeObject = {}
    """Strategic merge patch for each rollout pod: `metadata` and `spec` of a pod template."""
    tensor_parallel_size: PositiveInt = 1
    """Number of GPUs that each server splits the model across."""
    max_model_len: PositiveInt | None = None
    """Longest prompt, hint and completion of a server together, in tokens. Defaults to `model.contextLength`."""
    engine_args: dict[EngineFlag, EngineValue] = {}
    """Additional flags of vLLM without leading dashes, such as `gpu-memory-utilization: 0.9`; `true` if one has no value."""

    @property
    def servers(self) -> int:
        """Number of rollout pods: 0 if the trainer samples completions itself."""
        return self.replicas if self.engine == "vllm" else 0


class PersistentVolumeClaim(FrozenModel):
    """A claim that already exists."""

    claim_name: ObjectName
    """Name of the claim in the run's namespace."""


class PersistentVolumeClaimTemplate(FrozenModel):
    """A claim that is created for the run and named after run and volume, such as `<run>-run`."""

    storage_class_name: ObjectName | None = None
    """Storage class. The cluster's default if unset."""
    access_modes: AccessModes = ("ReadWriteMany",)
    """How nodes may mount the volume. ReadWriteOnce only works if all pods of the run are on one node."""
    size: Quantity
    """Size, such as `500Gi`."""
    retention: Literal["Retain", "Delete"] = "Retain"
    """Whether to keep the claim when the SeeleRun is deleted. A new run of the same name then resumes from its checkpoints."""


class HostPath(FrozenModel):
    """A folder of the node, for clusters of one node."""

    path: AbsolutePath
    """Absolute path. Created if it does not exist."""


class EmptyDir(FrozenModel):
    """A folder that is deleted with its pod. With `seele run`, the run's own folder."""

    size_limit: Quantity | None = None
    """Largest size. The node's own limit if unset."""


ONE_KIND = "give one of `persistentVolumeClaim`, `persistentVolumeClaimTemplate`, `hostPath` and `emptyDir`"


class Volume(FrozenModel):
    """Where files are stored. Exactly one kind must be set."""

    persistent_volume_claim: PersistentVolumeClaim | None = None
    """An existing claim. Must be ReadWriteMany if pods run on different nodes."""
    persistent_volume_claim_template: PersistentVolumeClaimTemplate | None = None
    """A claim that is created for the run."""
    host_path: HostPath | None = None
    """A folder of the node."""
    empty_dir: EmptyDir | None = None
    """A folder that is deleted with its pod."""

    @model_validator(mode="after")
    def _one_kind(self) -> "Volume":
        kinds = (self.persistent_volume_claim, self.persistent_volume_claim_template, self.host_path, self.empty_dir)
        given = sum(kind is not None for kind in kinds)
        if given != 1:
            raise ValueError(f"has {given} kinds; {ONE_KIND}")
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
    """The run's folder, shared by all its pods: checkpoints, weights for the servers, metrics and report."""
    hugging_face_cache: Volume | None = None
    """Cache of downloaded models and data sets (HF_HOME). In the run's folder if unset."""
    hugging_face_token_secret: SecretKey | None = None
    """Token for gated models and data sets. No token if unset."""
    shared_memory: Quantity = "8Gi"
    """Size of /dev/shm in each pod."""


class RunPolicy(FrozenModel):
    """When a run is started, suspended, restarted, failed and cleaned up."""

    suspend: bool = False
    """Stop all pods but keep the run's folder. Set it to false to resume from the latest checkpoint."""
    start_deadline_seconds: PositiveInt | None = None
    """Seconds within which all pods of an attempt must be running, or the run fails. Unlimited if unset."""
    active_deadline_seconds: PositiveInt | None = None
    """Seconds that the run may be active in total before it fails. Unlimited if unset."""
    stalled_after_seconds: PositiveInt | None = None
    """Seconds without a new step after which the attempt fails. Unlimited if unset."""
    backoff_limit: NonNegativeInt = 3
    """Restarts after failures of the run's own processes. The next such failure fails the run."""
    disruption_limit: NonNegativeInt = 20
    """Restarts after disruptions, such as evictions and lost nodes. The next disruption fails the run."""
    ttl_seconds_after_finished: NonNegativeInt | None = None
    """Seconds after which a finished SeeleRun is deleted, with all its objects. Never deleted if unset."""
    clean_pod_policy: Literal["Running", "All", "None"] = "Running"
    """Which pods to delete when the run ends: those still running, all, or none."""
    termination_grace_period_seconds: PositiveInt = 1800
    """Seconds that pods have to stop before they are killed; they end as soon as they have saved. Trainers warn if it is
    too short for a save.

    With 0 Kubernetes would forget pods that may still run.
    """
    pod_disruption_budget: bool = True
    """Protect trainers from voluntary evictions, such as those of a drained node."""


class ImagePullSecret(FrozenModel):
    """A Secret with credentials for an image registry."""

    name: ObjectName
    """Name of the Secret in the run's namespace."""


class Scheduling(FrozenModel):
    """Where pods may run, and as which service account."""

    node_selector: dict[str, str] = {}
    """Labels that a node must have."""
    tolerations: tuple[FreeObject, ...] = ()
    """Tolerations, as in a pod."""
    affinity: FreeObject = {}
    """Affinity, as in a pod."""
    priority_class_name: ObjectName | None = None
    """Priority class. The cluster's default if unset."""
    image_pull_secrets: Annotated[tuple[ImagePullSecret, ...], Field(max_length=64)] = ()
    """Secrets for pulling images."""
    service_account_name: ObjectName | None = None
    """Service account; its token is never mounted. The namespace's default if unset."""
    gang: Literal["none", "kueue", "volcano", "coscheduling"] = "none"
    """Gang scheduler, which starts all pods of the run together or not at all."""
    queue_name: ObjectName | None = None
    """Queue of Kueue (a LocalQueue) or Volcano. Kueue requires one; Volcano uses its default queue if unset."""


class SeeleRunSpec(FrozenModel):
    """The model, the data, the training method and the pods of a run."""

    model: config.Model
    """The language model to train."""
    dataset: config.Dataset
    """The problems to train on."""
    training: config.Training = config.Training()
    """How the model is trained."""
    hints: config.Hints = config.Hints()
    """How hints are chosen."""
    trainer: TrainerSpec = TrainerSpec()
    """The gang of trainer pods."""
    rollout: RolloutSpec = RolloutSpec()
    """The rollout servers, and how they sample completions."""
    verifier: config.Verifier = config.Verifier()
    """How answers are checked."""
    rewards: config.Rewards = config.Rewards()
    """What completions earn."""
    evaluation: config.Evaluation = config.Evaluation()
    """Held-out evaluation without hints."""
    checkpoints: config.Checkpoints = config.Checkpoints()
    """When the complete state of the run is saved."""
    observability: config.Observability = config.Observability()
    """Where metrics are sent, in addition to Prometheus and the run's folder."""
    storage: Storage = Storage()
    """Volumes."""
    run_policy: RunPolicy = RunPolicy()
    """Deadlines, restarts, suspension and cleanup."""
    scheduling: Scheduling = Scheduling()
    """Where pods may run."""

    def trainer_config(self, name: str) -> config.TrainerConfig:
        """The config.yaml of the trainer pods of run `name`: this spec without the fields that only describe pods."""
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
    """The part of a Kubernetes object's metadata that Seele reads. Other fields are ignored."""

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
    """Identifier from the API server; absent outside a cluster."""


class SeeleRun(FrozenModel):
    """A training run."""

    api_version: Literal["seele.dev/v1alpha1"]
    """Version of this format."""
    kind: Literal["SeeleRun"]
    """Kind of object."""
    metadata: Metadata
    """Name and labels."""
    spec: SeeleRunSpec
    """The desired run."""
    status: FreeObject = {}
    """Written by the operator, never read from a file."""


GROUP, VERSION = API_VERSION.split("/")

PLURAL = "seeleruns"
