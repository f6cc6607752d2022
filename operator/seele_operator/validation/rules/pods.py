"""Rules about pods: rollout servers, queues, resources and environment."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic.alias_generators import to_snake

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import amount, shown, yaml_path
from seele_operator.validation.rules.rule import Rule, Rules, Values, when

RULES = Rules(
    (
        Rule(
            "spec.scheduling.queueName",
            "is missing, and gang kueue needs it; name a LocalQueue of the run's namespace",
            "self.scheduling.gang != 'kueue' || has(self.scheduling.queueName)",
            check=when(lambda spec: spec.scheduling.gang == "kueue" and spec.scheduling.queue_name is None),
        ),
        Rule(
            "spec.scheduling.queueName",
            '["{scheduling.queue_name}" ]has no effect with [gang {scheduling.gang}|gangs none and coscheduling]; '
            "remove it, or use gang: kueue or volcano",
            "!(self.scheduling.gang in ['none', 'coscheduling']) || !has(self.scheduling.queueName)",
            check=when(
                lambda spec: spec.scheduling.gang in {"none", "coscheduling"} and spec.scheduling.queue_name is not None
            ),
        ),
    )
)


@RULES.add("{field}", "{requested} is above its limit, {limit}; request at most the limit")
def _requests(spec: SeeleRunSpec) -> Iterator[Values]:
    for section, resources in (("trainer", spec.trainer.resources), ("rollout", spec.rollout.resources)):
        for name, requested in resources.requests.items():
            limit = resources.limits.get(name)
            if limit is not None and amount(requested) > amount(limit):
                field = yaml_path(("spec", section, "resources", "requests", name))
                yield {"field": field, "requested": requested, "limit": limit}


def _needs_servers(field: str) -> Rule:
    attribute = to_snake(field)
    return Rule(
        f"spec.rollout.{field}",
        f"[{{rollout.{attribute}}} ]needs servers; use 1 with engine transformers, or engine: vllm",
        f"self.rollout.engine == 'vllm' || self.rollout.{field} <= 1",
        check=when(lambda spec: spec.rollout.engine == "transformers" and getattr(spec.rollout, attribute) > 1),
    )


def _enough_gpus(section: str, field: str, gpu: str) -> Rule:
    limits = f"self.{section}.resources.limits"
    limited = f"string({limits}['{gpu}'])"
    # CEL compares only plain digits: what `2k` means is left to Python.
    fewer = f"{limited}.matches('^0*[1-9][0-9]{{0,9}}$') && int({limited}) < self.{section}.{field}"

    def check(spec: SeeleRunSpec) -> Iterator[Values]:
        pods = getattr(spec, section)
        needed, limit = getattr(pods, to_snake(field)), pods.resources.limits.get(gpu, "0")
        if 0 < amount(limit) < needed:
            yield {"needed": needed, "limit": limit}

    message = "[{needed} ]needs as many GPUs, and " + gpu + " is limited to [{limit}|fewer]; raise that limit"
    return Rule(f"spec.{section}.{field}", message, f"!('{gpu}' in {limits} && {fewer})", check=check)


def _distinct_variables(section: str) -> Rule:
    def check(spec: SeeleRunSpec) -> Iterator[Values]:
        names = [variable.name for variable in getattr(spec, section).env]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield {"index": index, "name": shown(name)}

    return Rule(
        f"spec.{section}.env[{{index}}].name",
        "[{name}|a name] is given twice; keep one of them",
        "self.all(one, self.exists_one(other, other.name == one.name))",
        f"spec.{section}.env",
        check,
    )


RULES += [_needs_servers(field) for field in ("replicas", "tensorParallelSize")]
RULES += [_distinct_variables(section) for section in ("trainer", "rollout")]
RULES += [
    _enough_gpus(section, field, gpu)
    for section, field in (("trainer", "processesPerReplica"), ("rollout", "tensorParallelSize"))
    for gpu in ("nvidia.com/gpu", "amd.com/gpu")
]
