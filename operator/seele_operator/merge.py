"""Strategic merge of overrides into a pod: mappings by key, lists of named things by their name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

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
"""Lists whose elements are merged with the element of the same key; other lists are replaced, as by `kubectl patch`."""

SOURCES = ("value", "valueFrom")
"""Of an environment variable; an override that gives one of them takes the other away."""


def merge(base: Mapping[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `patch` merged into it, neither of them changed.

    A null in `patch` removes the key; an element `{<key>: ..., "$patch": "delete"}` of a keyed list removes that
    element; elements with new keys are appended.
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
