"""All rules of a SeeleRun, and who applies them: `seele validate`, the operator and, by the CRD, the API server."""

from collections.abc import Callable, Iterable
from typing import Any

from seele_operator.api.pod_template import template_problems
from seele_operator.api.seelerun import SeeleRun, SeeleRunSpec
from seele_operator.validation.rules import cluster, data, lengths, pods, training, values
from seele_operator.validation.rules.rule import Rule

VALIDATIONS = "x-kubernetes-validations"

_ANYWHERE: tuple[Rule, ...] = (*training.RULES, *data.RULES, *lengths.RULES, *pods.RULES, *values.RULES)

RULES: tuple[Rule, ...] = (*_ANYWHERE, *cluster.RULES)

LineCheck = Callable[[SeeleRunSpec], Iterable[str]]
"""Yields a line for each problem of one kind."""

ANYWHERE: tuple[LineCheck, ...] = (
    *(rule.problems for rule in _ANYWHERE),
    lambda spec: template_problems(("spec", "trainer"), spec.trainer.pod_template),
    lambda spec: template_problems(("spec", "rollout"), spec.rollout.pod_template),
)
"""What cannot work, on a cluster or on one machine."""

ON_A_CLUSTER: tuple[LineCheck, ...] = tuple(rule.problems for rule in cluster.RULES)
"""What works on one machine but not on a cluster."""


def check_run(run: SeeleRun) -> list[str]:
    """A line for each combination of fields that cannot work, on a cluster or on one machine."""
    return [line for check in ANYWHERE for line in check(run.spec)]


def check_cluster(run: SeeleRun) -> list[str]:
    """A line for each thing that works on one machine but not on a cluster."""
    return [line for check in ON_A_CLUSTER for line in check(run.spec)]


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
