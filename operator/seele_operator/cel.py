"""Rules of a SeeleRun as CEL, for servers that evaluate it (Kubernetes 1.25 and later): they refuse on `kubectl apply`
what the operator would otherwise refuse a moment later.

These are the rules of `spec.py` and `checks.py`, as far as a server can say them: nothing about free objects such as
`podTemplate` and about values of any type, as in `engineArgs`, no arithmetic of quantities (1.29), and nothing dear: an
estimate of the costs must stay in bounds, so that there are no rules about mappings of any size. The operator checks
everything whatever the server does. A message cannot show values, since 1.25 has no `messageExpression`.

A rule about several fields stands at `spec`. Below it the default of a section is `{}`, and the API server judges a
default by the rules at its own place before it fills in those of its fields.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from seele_operator.cel_rule import Rule
from seele_operator.cel_strategies import PROBLEM_ROLLOUTS, STRATEGY_RULES, is_one_of
from seele_operator.name_rules import MAX_NAME_LENGTH, RESERVED_ENVIRONMENT
from seele_trainer.method_options import ON_SOLUTIONS, SUPERVISED, WITH_HINTS

VALIDATIONS = "x-kubernetes-validations"


_RANKS = "self.trainer.replicas * self.trainer.processesPerReplica"

_BATCHES = (
    Rule(
        "spec",
        "self.training.problemsPerStep % self.training.problemsPerUpdate == 0",
        "spec.training.problemsPerUpdate: does not divide problemsPerStep; use a divisor of it",
    ),
    Rule(
        "spec",
        f"{_RANKS} <= self.training.problemsPerUpdate * ({is_one_of(SUPERVISED)} ? 1 : {PROBLEM_ROLLOUTS})",
        "spec.trainer.replicas: makes more ranks than an update has rollouts (problemsPerUpdate times rounds times "
        "rolloutsPerRound) or, with strategies sft and sft_then_grpo, solutions (problemsPerUpdate); use fewer replicas or "
        "processesPerReplica",
    ),
)

_HINT = f"({is_one_of(WITH_HINTS)} ? self.dataset.maxSolutionTokens : 0)"
_NEEDED = f"self.dataset.maxPromptTokens + {_HINT} + self.rollout.maxCompletionTokens"
_ANSWER = "self.dataset.maxPromptTokens + self.evaluation.maxCompletionTokens"
_SERVED = "self.rollout.engine == 'vllm' && has(self.rollout.maxModelLen)"
_LIMITED = f"(has(self.model.contextLength) || {_SERVED})"
_LIMIT = (
    f"({_SERVED} ? (has(self.model.contextLength) && self.model.contextLength < self.rollout.maxModelLen ? "
    "self.model.contextLength : self.rollout.maxModelLen) : self.model.contextLength)"
)
_LENGTHS = (
    Rule(
        "spec",
        "!has(self.rollout.maxModelLen) || !has(self.model.contextLength) || "
        "self.rollout.maxModelLen <= self.model.contextLength",
        "spec.rollout.maxModelLen: is above model.contextLength; use at most that, or leave it out",
    ),
    Rule(
        "spec",
        f"!{_LIMITED} || {_NEEDED} <= {_LIMIT}",
        "spec.rollout.maxCompletionTokens: with dataset.maxPromptTokens and, for strategies with hints, "
        "dataset.maxSolutionTokens does not fit into rollout.maxModelLen or model.contextLength; use less here, "
        "or shorten the others",
    ),
    Rule(
        "spec",
        f"!has(self.model.contextLength) || !({is_one_of(ON_SOLUTIONS)}) || "
        "self.dataset.maxPromptTokens + self.dataset.maxSolutionTokens <= self.model.contextLength",
        "spec.dataset.maxSolutionTokens: with maxPromptTokens does not fit into model.contextLength, and this strategy "
        "trains on whole solutions; use less here, or shorten the others",
    ),
    Rule(
        "spec",
        f"!{_LIMITED} || !has(self.evaluation.maxCompletionTokens) || {_ANSWER} <= {_LIMIT}",
        "spec.evaluation.maxCompletionTokens: with dataset.maxPromptTokens does not fit into rollout.maxModelLen or "
        "model.contextLength; use less here, or shorten the others",
    ),
)


def _enough_gpus(section: str, field: str, name: str) -> Rule:
    limits = f"self.{section}.resources.limits"
    amount = f"string({limits}['{name}'])"
    # Only amounts in plain digits are compared: what `2k` stands for, only the operator says.
    few = f"{amount}.matches('^0*[1-9][0-9]{{0,9}}$') && int({amount}) < self.{section}.{field}"
    return Rule(
        "spec",
        f"!('{name}' in {limits} && {few})",
        f"spec.{section}.{field}: needs as many GPUs, and {name} is limited to fewer; raise that limit",
    )


_PODS = (
    *(
        _enough_gpus(section, field, name)
        for section, field in (("trainer", "processesPerReplica"), ("rollout", "tensorParallelSize"))
        for name in ("nvidia.com/gpu", "amd.com/gpu")
    ),
    Rule(
        "spec",
        "!has(self.storage.run.emptyDir) || "
        "self.trainer.replicas + (self.rollout.engine == 'vllm' ? self.rollout.replicas : 0) <= 1",
        "spec.storage.run.emptyDir: belongs to one pod, and this run has several that share its folder; use a "
        "persistentVolumeClaim or persistentVolumeClaimTemplate that is ReadWriteMany, or a hostPath on a cluster of "
        "one node",
    ),
    *(
        Rule(
            "spec",
            f"self.rollout.engine == 'vllm' || self.rollout.{field} <= 1",
            f"spec.rollout.{field}: needs servers; use 1 with engine transformers, or engine: vllm",
        )
        for field in ("replicas", "tensorParallelSize")
    ),
    Rule(
        "spec",
        "self.scheduling.gang != 'kueue' || has(self.scheduling.queueName)",
        "spec.scheduling.queueName: is missing, and gang kueue needs it; name a LocalQueue of the run's namespace",
    ),
    Rule(
        "spec",
        "!(self.scheduling.gang in ['none', 'coscheduling']) || !has(self.scheduling.queueName)",
        "spec.scheduling.queueName: has no effect with gangs none and coscheduling; remove it, or use gang: kueue or "
        "volcano",
    ),
)

_DEEPSPEED = (
    Rule(
        "spec",
        "self.trainer.deepspeed.offloadOptimizer != 'cpu' || self.trainer.deepspeed.zeroStage != 0",
        "spec.trainer.deepspeed: `offloadOptimizer: cpu` needs `zeroStage` 1, 2 or 3, and it is 0",
    ),
    Rule(
        "spec",
        "self.trainer.deepspeed.offloadParameters != 'cpu' || self.trainer.deepspeed.zeroStage == 3",
        "spec.trainer.deepspeed: `offloadParameters: cpu` needs `zeroStage: 3`, and it is not",
    ),
)


def _source(place: str) -> Iterator[Rule]:
    yield Rule(
        place,
        "has(self.name) != has(self.path)",
        f"{place}: give exactly one of `name` (Hugging Face data set) and `path` (local file)",
    )
    yield Rule(
        place,
        r"!has(self.path) || self.path.matches('[^/][.](jsonl|json|parquet)(/[.]?)*$')",
        f"{place}: `path` has another ending; use a .jsonl, .json or .parquet file",
    )


_BENCHMARK = "spec.evaluation.benchmarks[]"
_DATA = (
    *_source("spec.dataset"),
    Rule(
        "spec.dataset",
        "self.format != 'generic' || has(self.fields.solution) || has(self.fields.steps)",
        "spec.dataset.fields.solution: null leaves nothing to cut hints from; name the column with solutions, or that "
        "with lists of steps in fields.steps",
    ),
    *_source(_BENCHMARK),
    Rule(
        _BENCHMARK,
        "self.format != 'generic' || has(self.fields.solution) || has(self.fields.answer)",
        f"{_BENCHMARK}.fields.answer: null, as is solution: nothing to check against; name one of the columns",
    ),
    Rule(
        f"{_BENCHMARK}.title",
        "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$')",
        f"{_BENCHMARK}.title: cannot stand in metrics and on the command line; use at most 63 letters, digits, "
        "hyphens, dots and underscores, such as gsm8k",
    ),
)


_OBJECT_NAMES = {
    "spec.storage.run.persistentVolumeClaim": "claimName",
    "spec.storage.huggingFaceCache.persistentVolumeClaim": "claimName",
    "spec.storage.huggingFaceTokenSecret": "name",
    "spec.scheduling": "priorityClassName serviceAccountName queueName",
    "spec.scheduling.imagePullSecrets[]": "name",
}
_OBJECT_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_QUANTITY = "^([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?$"
_NAMES = (
    Rule(
        "",
        f"self.metadata.name.size() <= {MAX_NAME_LENGTH} && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        f"metadata.name: must be a DNS label that begins with a letter, of at most {MAX_NAME_LENGTH} characters, as "
        "names of pods and services derive from it",
    ),
    *(
        Rule(
            f"{place}.{field}",
            f"self.matches('{_OBJECT_NAME}')",
            f"{place}.{field}: is no name of a Kubernetes object; use small letters, digits, hyphens and dots",
        )
        for place, fields in _OBJECT_NAMES.items()
        for field in fields.split()
    ),
    *(
        Rule(
            f"spec.storage.{volume}.hostPath.path",
            "self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
            f"spec.storage.{volume}.hostPath.path: is no absolute path; begin it with / and leave out ..",
        )
        for volume in ("run", "huggingFaceCache")
    ),
    *(
        Rule(
            f"spec.storage.{volume}",
            "[has(self.persistentVolumeClaim), has(self.persistentVolumeClaimTemplate), has(self.hostPath), "
            "has(self.emptyDir)].exists_one(given, given)",
            f"spec.storage.{volume}: give one of `persistentVolumeClaim`, `persistentVolumeClaimTemplate`, `hostPath` "
            "and `emptyDir`",
        )
        for volume in ("run", "huggingFaceCache")
    ),
)

_RESERVED = ", ".join(f"'{name}'" for name in sorted(RESERVED_ENVIRONMENT))


def _quantity(place: str) -> Rule:
    return Rule(
        place,
        f"type(self) == int ? self >= 0 : self.matches('{_QUANTITY}')",
        f"{place}: is not a Kubernetes quantity; write a number with a unit, such as 500m, 4, 512Mi or 8Gi",
    )


_CONTAINERS = (
    *(
        rule
        for section in ("trainer", "rollout")
        for rule in (
            Rule(
                f"spec.{section}.env[].name",
                "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                f"spec.{section}.env: is no name of an environment variable; use letters, digits and underscores",
            ),
            Rule(
                f"spec.{section}.env[].name",
                f"!self.startsWith('SEELE_') && !(self in [{_RESERVED}])",
                f"spec.{section}.env: is set by Seele itself; remove it",
            ),
            Rule(
                f"spec.{section}.env",
                "self.all(one, self.exists_one(other, other.name == one.name))",
                f"spec.{section}.env: a name is given twice; keep one of them",
            ),
        )
    ),
    _quantity("spec.storage.run.emptyDir.sizeLimit"),
    _quantity("spec.storage.huggingFaceCache.emptyDir.sizeLimit"),
    _quantity("spec.storage.sharedMemory"),
    Rule(
        "spec.evaluation.benchmarks",
        "self.all(one, self.exists_one(other, other.title == one.title))",
        "spec.evaluation: two benchmarks have the same title: give each its own",
    ),
)

RULES: tuple[Rule, ...] = (*_BATCHES, *STRATEGY_RULES, *_LENGTHS, *_PODS, *_DEEPSPEED, *_DATA, *_NAMES, *_CONTAINERS)


def add_rules(schema: dict[str, Any]) -> None:
    """Write all rules into the structural schema of a SeeleRun, each where it belongs."""
    for rule in RULES:
        node = _node(schema, rule.place)
        node.setdefault(VALIDATIONS, []).append({"rule": rule.expression, "message": rule.message})


def _node(schema: dict[str, Any], place: str) -> dict[str, Any]:
    for part in place.split(".") if place else ():
        name = part.removesuffix("[]")
        schema = schema["properties"][name]
        if name != part:
            schema = schema["items"] if "items" in schema else schema["additionalProperties"]
    return schema
