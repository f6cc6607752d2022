"""Rules about single values and volumes: names, paths, quantities. The models check these in Python; this is their CEL."""

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

_ONE_KIND = (
    "[has(self.persistentVolumeClaim), has(self.persistentVolumeClaimTemplate), has(self.hostPath), has(self.emptyDir)]"
    ".exists_one(given, given)"
)

_NOT_RESERVED = f"!self.startsWith('SEELE_') && !(self in {sorted(RESERVED_ENVIRONMENT)})"

RULES = Rules(
    Rule(f"spec.{field}", message, cel, f"spec.{field}")
    for fields, message, cel in (
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

RULES.append(
    Rule(
        "metadata.name",
        f"must be a DNS label that starts with a letter, of at most {MAX_NAME_LENGTH} characters, as Pods and Services "
        "are named after the run",
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        self_is="",
    )
)
