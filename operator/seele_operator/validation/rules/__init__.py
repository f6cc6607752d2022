"""All rules of a SeeleRun, and who applies them: `seele validate`, the operator and, by the CRD, the API server."""

from __future__ import annotations

from typing import Any

from seele_operator.api.pod_template import template_problems
from seele_operator.api.seelerun import SeeleRun
from seele_operator.validation.rules import cluster, data, lengths, pods, training, values
from seele_operator.validation.rules.rule import Rule

VALIDATIONS = "x-kubernetes-validations"

_ANYWHERE: tuple[Rule, ...] = (*training.RULES, *data.RULES, *lengths.RULES, *pods.RULES, *values.RULES)

RULES: tuple[Rule, ...] = (*_ANYWHERE, *cluster.RULES)


def check_run(run: SeeleRun) -> list[str]:
    """A line for each combination of fields that cannot work, on a cluster or on one machine."""
    lines = [line for rule in _ANYWHERE for line in rule.problems(run.spec)]
    for name, section in (("trainer", run.spec.trainer), ("rollout", run.spec.rollout)):
        lines += template_problems(("spec", name), section.pod_template)
    return lines


def check_cluster(run: SeeleRun) -> list[str]:
    """A line for each thing that works on one machine but not on a cluster."""
    return [line for rule in cluster.RULES for line in rule.problems(run.spec)]


def add_rules(schema: dict[str, Any]) -> None:
    """Add the rules that have CEL to the structural schema of a SeeleRun, each to the field that is its `self`."""
    for rule in RULES:
        if rule.cel:
            validation = {"rule": rule.cel, "message": rule.general_message}
            _node(schema, rule.self_is).setdefault(VALIDATIONS, []).append(validation)


def _node(schema: dict[str, Any], place: str) -> dict[str, Any]:
    for part in place.split(".") if place else ():
        name = part.removesuffix("[]")
        schema = schema["properties"][name]
        if name != part:
            schema = schema["items"]
    return schema
