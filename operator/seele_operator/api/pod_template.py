"""Strategic merge of overrides into a pod: mappings by key, and lists of named elements by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from seele_operator.api.seelerun import LABEL_PREFIX, FreeObject
from seele_operator.api.types import nearest, shown, yaml_path

MERGE_KEYS: Mapping[str, str] = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "ports": "containerPort",
    "imagePullSecrets": "name",
    "hostAliases": "ip",
    "topologySpreadConstraints": "topologyKey",
    "resourceClaims": "name",
}
"""Lists whose elements are merged by a key. Other lists are replaced, as by `kubectl patch`."""

SOURCES = ("value", "valueFrom")
"""Sources of an environment variable; an override with one of them removes the other."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `base` with `patch` merged into it.

    A null in `patch` removes the key, and an element `{<key>: ..., "$patch": "delete"}` of a keyed list removes that
    element. Elements with new keys are appended.
    """
    merged = dict(base)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            before = merged.get(key)
            merged[key] = merge(before if isinstance(before, Mapping) else {}, value)
        elif key in MERGE_KEYS and isinstance(value, Sequence) and not isinstance(value, str):
            merged[key] = _merge_elements(merged.get(key) or (), value, MERGE_KEYS[key])
        else:
            merged[key] = value
    return merged


def _merge_elements(base: Sequence[Any], patch: Sequence[Any], key: str) -> list[Any]:
    merged = {element.get(key): dict(element) for element in base}
    for element in patch:
        identity = element.get(key)
        if element.get("$patch") == "delete":
            merged.pop(identity, None)
            continue
        before = merged.get(identity, {})
        if any(source in element for source in SOURCES):
            before = {name: value for name, value in before.items() if name not in SOURCES}
        merged[identity] = merge(before, element)
    return list(merged.values())


Path = tuple[str | int, ...]

_TEMPLATE = ("metadata", "spec")

_TEMPLATE_METADATA = ("labels", "annotations")

_FIXED_POD_FIELDS = {
    "restartPolicy": "remove it: Seele restarts all trainers together (spec.runPolicy.backoffLimit)",
    "hostname": "remove it: ranks find each other by it",
    "terminationGracePeriodSeconds": "set spec.runPolicy.terminationGracePeriodSeconds",
    "subdomain": "remove it: ranks find each other by it",
    "activeDeadlineSeconds": "set spec.runPolicy.activeDeadlineSeconds",
}


def template_problems(path: Path, template: FreeObject) -> Iterator[str]:
    """A line for each override that does not exist in a pod, would break the run, or cannot be merged."""
    path = (*path, "podTemplate")
    yield from _only(path, template, _TEMPLATE)
    metadata, pod = template.get("metadata", {}), template.get("spec", {})
    for name, part in (("metadata", metadata), ("spec", pod)):
        if not isinstance(part, Mapping):
            yield f"{yaml_path((*path, name))}: {shown(part)} is not a mapping; write its fields below it"
    if isinstance(metadata, Mapping):
        yield from _only((*path, "metadata"), metadata, _TEMPLATE_METADATA)
        labels = metadata.get("labels")
        for label in labels if isinstance(labels, Mapping) else ():
            if label.startswith(LABEL_PREFIX):
                yield f"{yaml_path((*path, 'metadata', 'labels', label))}: is set by Seele itself; remove it"
    if isinstance(pod, Mapping):
        for field, remedy in _FIXED_POD_FIELDS.items():
            if field in pod:
                yield f"{yaml_path((*path, 'spec', field))}: is set by Seele itself; {remedy}"
        security = pod.get("securityContext")
        if security is not None and not isinstance(security, Mapping):
            place = yaml_path((*path, "spec", "securityContext"))
            yield f"{place}: {shown(security)} is not a mapping; write its fields below it"
        yield from _unmergeable((*path, "spec"), pod)


def _only(path: Path, given: Mapping[str, object], known: Sequence[str]) -> Iterator[str]:
    for name in given:
        if name not in known:
            near = nearest(name, known)
            remedy = f"did you mean {near}?" if near else f"use {' and '.join(known)}"
            yield f"{yaml_path((*path, name))}: is not a field; {remedy}"


def _unmergeable(path: Path, fields: Mapping[str, object]) -> Iterator[str]:
    """A line for each entry that lacks the key by which its list is merged."""
    for name, value in fields.items():
        if name not in MERGE_KEYS or value is None:
            continue
        here = (*path, name)
        if not isinstance(value, list):
            yield f"{yaml_path(here)}: {shown(value)} is not a list; write each entry on a line of its own, after `- `"
            continue
        for index, entry in enumerate(value):
            if isinstance(entry, Mapping) and MERGE_KEYS[name] in entry:
                yield from _unmergeable((*here, index), entry)
            else:
                place = yaml_path((*here, index))
                yield f"{place}: has no {MERGE_KEYS[name]}, by which it is merged; give it one"
