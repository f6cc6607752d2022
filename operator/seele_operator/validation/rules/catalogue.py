"""Rules that tie several fields of a SeeleRun together. Each is a generator of lines: field, value, reason, remedy."""

from __future__ import annotations

from typing import Any

from seele_operator.api.pod_template import template_problems
from seele_operator.api.seelerun import SeeleRun
from seele_operator.validation.rules.cluster import _gang, cluster_problems
from seele_operator.validation.rules.data import _DATA, _benchmarks, _solutions
from seele_operator.validation.rules.lengths import _LENGTHS, _lengths
from seele_operator.validation.rules.pods import (
    _CONTAINERS,
    _NAMES,
    _PODS,
    _engine,
    env_problems,
    gpu_problems,
    resource_problems,
)
from seele_operator.validation.rules.rule import Rule
from seele_operator.validation.rules.training import (
    _BATCHES,
    _DEEPSPEED,
    STRATEGY_RULES,
    _batches,
    _deepspeed,
    strategy_problems,
)


def check_run(run: SeeleRun) -> list[str]:
    """Every combination of fields that cannot work, wherever the run is carried out; empty where all is well."""
    spec = run.spec
    rules = (_batches, strategy_problems, _solutions, _lengths, _engine, _deepspeed, _benchmarks, _gang)
    problems = [line for rule in rules for line in rule(spec)]
    for name, pods in (("trainer", spec.trainer), ("rollout", spec.rollout)):
        problems += resource_problems(("spec", name), pods.resources)
        problems += env_problems(("spec", name), pods.env)
        problems += template_problems(("spec", name), pods.pod_template)
    return [*problems, *gpu_problems(spec)]


def check_cluster(run: SeeleRun) -> list[str]:
    """What works on one machine and not where each pod has its own node and its own folders."""
    return list(cluster_problems(run.spec))


VALIDATIONS = "x-kubernetes-validations"

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
