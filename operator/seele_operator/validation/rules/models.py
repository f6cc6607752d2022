"""The CEL of rules that the models of a SeeleRun check in Python."""

from __future__ import annotations

from seele_operator.api.seelerun import ONE_KIND
from seele_operator.api.types import (
    ABSOLUTE_PATH,
    ENVIRONMENT_NAME,
    MAX_NAME_LENGTH,
    OBJECT_NAME,
    QUANTITY,
    RESERVED_ENVIRONMENT,
    SET_BY_SEELE,
)
from seele_operator.validation.rules.rule import Rule, Rules
from seele_trainer.config import DATA_FORMATS, DISTINCT_TITLES, OFFLOADED_OPTIMIZER, OFFLOADED_PARAMETERS, ONE_SOURCE

_SOURCES = ("dataset", "evaluation.benchmarks[]")

_VOLUMES = ("storage.run", "storage.huggingFaceCache")

_VARIABLES = ("trainer.env[].name", "rollout.env[].name")

_NAMES = (
    *(f"{volume}.persistentVolumeClaim.claimName" for volume in _VOLUMES),
    "storage.huggingFaceTokenSecret.name",
    "scheduling.priorityClassName",
    "scheduling.serviceAccountName",
    "scheduling.queueName",
    "scheduling.imagePullSecrets[].name",
)

_QUANTITIES = (*(f"{volume}.emptyDir.sizeLimit" for volume in _VOLUMES), "storage.sharedMemory")

_ONE_SOURCE = "has(self.name) != has(self.path)"

_ONE_KIND = (
    "[has(self.persistentVolumeClaim), has(self.persistentVolumeClaimTemplate), has(self.hostPath), has(self.emptyDir)]"
    ".exists_one(given, given)"
)

_DATA_FILE = "!has(self.path) || self.path.matches('[^/][.](jsonl|json|parquet)(/[.]?)*$')"

_NOT_RESERVED = f"!self.startsWith('SEELE_') && !(self in {sorted(RESERVED_ENVIRONMENT)})"

RULES = Rules(
    Rule(f"spec.{field}", message, cel, f"spec.{field}")
    for fields, message, cel in (
        (_SOURCES, ONE_SOURCE, _ONE_SOURCE),
        (_SOURCES, f"`path` has another extension: {DATA_FORMATS}", _DATA_FILE),
        (_NAMES, OBJECT_NAME.message, OBJECT_NAME.cel),
        (_VARIABLES, ENVIRONMENT_NAME.message, ENVIRONMENT_NAME.cel),
        (_VARIABLES, SET_BY_SEELE, _NOT_RESERVED),
        (_QUANTITIES, QUANTITY.message, f"type(self) == int ? self >= 0 : {QUANTITY.cel}"),
        (_VOLUMES, ONE_KIND, _ONE_KIND),
        (
            [f"{volume}.hostPath.path" for volume in _VOLUMES],
            ABSOLUTE_PATH,
            "self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
        ),
    )
    for field in fields
)

RULES += [
    Rule(
        "metadata.name",
        f"must be a DNS label that starts with a letter, of at most {MAX_NAME_LENGTH} characters, as Pods and Services "
        "are named after the run",
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        self_is="",
    ),
    Rule(
        "spec.evaluation",
        DISTINCT_TITLES,
        "self.all(one, self.exists_one(other, other.title == one.title))",
        self_is="spec.evaluation.benchmarks",
    ),
    Rule(
        "spec.trainer.deepspeed",
        OFFLOADED_OPTIMIZER,
        "self.trainer.deepspeed.offloadOptimizer != 'cpu' || self.trainer.deepspeed.zeroStage != 0",
    ),
    Rule(
        "spec.trainer.deepspeed",
        OFFLOADED_PARAMETERS,
        "self.trainer.deepspeed.offloadParameters != 'cpu' || self.trainer.deepspeed.zeroStage == 3",
    ),
]
