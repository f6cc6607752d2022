"""Rules about pods: rollout servers, queues, resources and environment."""

from collections.abc import Iterator, Mapping

from pydantic.alias_generators import to_snake

from seele_operator.api.pod_template import Path
from seele_operator.api.seelerun import FreeObject, Resources, SeeleRunSpec
from seele_operator.api.types import amount, is_device, shown, yaml_path
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


@RULES.add("{field}", "{quantity} is {wrong}; {remedy}")
def _whole_amounts(spec: SeeleRunSpec) -> Iterator[Values]:
    """Devices and bytes cannot be divided. A fraction of a byte is usually a wrong unit, such as `512m` for `512Mi`."""
    for section in ("trainer", "rollout"):
        pods = getattr(spec, section)
        for path, name, quantity in _amounts(("spec", section), pods.resources, pods.pod_template):
            wrong, remedy = _not_whole(name, quantity)
            if wrong:
                yield {"field": yaml_path(path), "quantity": shown(quantity), "wrong": wrong, "remedy": remedy}


def _not_whole(name: str, quantity: object) -> tuple[str, str]:
    """What is wrong with an amount of the resource `name`, and the remedy; both empty if nothing is wrong."""
    try:
        number = amount(str(quantity))
    except ValueError:
        return "not a quantity", "write a number, with a unit if needed, such as 500m, 4, 512Mi or 8Gi"
    if name == "cpu" or number == int(number):
        return "", ""
    if is_device(name):
        return "a fraction, and a device cannot be divided", f"write a whole number, such as {max(1, int(number))}"
    return "a fraction of a byte", "write a whole number with a unit, such as 512Mi or 8Gi"


def _amounts(path: Path, resources: Resources, template: FreeObject) -> Iterator[tuple[Path, str, object]]:
    """Path, name and quantity of each resource of a section and of the containers in its pod template."""
    for kind in ("requests", "limits"):
        for name, quantity in getattr(resources, kind).items():
            yield (*path, "resources", kind, name), name, quantity
    for inner, name, quantity in template_amounts(template):
        yield (*path, "podTemplate", *inner), name, quantity


def template_amounts(template: FreeObject) -> Iterator[tuple[Path, str, object]]:
    """Path, name and quantity of each resource of the containers in a pod template."""
    pod = _mapping(template.get("spec"))
    for group in ("initContainers", "containers"):
        containers = pod.get(group)
        for index, container in enumerate(containers if isinstance(containers, list) else ()):
            resources = _mapping(_mapping(container).get("resources"))
            for kind in ("requests", "limits"):
                for name, quantity in _mapping(resources.get(kind)).items():
                    if quantity is not None:  # null removes an amount
                        yield ("spec", group, index, "resources", kind, name), name, quantity


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


@RULES.add("spec.storage.{volume}.persistentVolumeClaimTemplate.size", "{size} is nothing; give a size, such as 500Gi")
def _some_storage(spec: SeeleRunSpec) -> Iterator[Values]:
    """Kubernetes refuses a claim of 0 bytes."""
    for name, volume in (("run", spec.storage.run), ("huggingFaceCache", spec.storage.hugging_face_cache)):
        template = volume.persistent_volume_claim_template if volume is not None else None
        if template is not None and amount(template.size) == 0:
            yield {"volume": name, "size": shown(template.size)}


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
