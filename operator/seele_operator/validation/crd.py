"""The CustomResourceDefinition seeleruns.seele.dev."""

import json
from copy import deepcopy
from typing import Any

from seele_operator.api.seelerun import GROUP, KIND, PLURAL, VERSION
from seele_operator.api.status import RunStatus
from seele_operator.validation.rules import add_rules
from seele_operator.validation.schema import Schema, run_schema, structural

_COLUMNS = (
    ("Phase", "string", ".status.phase", "State of the run in one word."),
    ("Step", "integer", ".status.step", "Completed training steps."),
    ("Accuracy", "number", ".status.accuracy", "Latest held-out accuracy without hints, from 0 to 1."),
    ("Hint", "number", ".status.hintRate", "Mean share of the solution that is shown as a hint, from 0 to 1."),
    ("Age", "date", ".metadata.creationTimestamp", "Time since creation."),
)

_WIDE_COLUMNS = (
    ("Attempt", "integer", ".status.attempt", "Number of the current attempt."),
    ("Checkpoint", "integer", ".status.lastCheckpoint.step", "Training step of the latest checkpoint."),
    ("Message", "string", ".status.message", "State of the run in one sentence."),
)
"""Columns that only `kubectl get -o wide` shows."""

_PLAIN = (str, bool, int, float)


def crd(cel: bool = True) -> dict[str, Any]:
    """The definition, for Kubernetes 1.16 or later.

    Servers before 1.25 ignore the rules in CEL. Those before 1.23 do not know the field: they drop it from a plain POST,
    but kubectl and server-side apply refuse it. `cel=False` omits the rules for them.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "seelerun",
                "shortNames": ["srun"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _columns(),
                    "schema": {"openAPIV3Schema": _schema(cel)},
                }
            ],
        },
    }


def _columns() -> list[dict[str, Any]]:
    columns = [*((*column, {}) for column in _COLUMNS), *((*column, {"priority": 1}) for column in _WIDE_COLUMNS)]
    return [
        {"name": name, "type": kind, "jsonPath": path, **priority, "description": description}
        for name, kind, path, description, priority in columns
    ]


def _schema(cel: bool) -> Schema:
    schema = deepcopy(run_schema())
    _describe_defaults(schema)
    # The API server checks these three itself, and does not allow a schema for metadata.
    schema["properties"]["apiVersion"] = {"type": "string", "description": "Version of this format."}
    schema["properties"]["kind"] = {"type": "string", "description": "Kind of object."}
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["status"] = _status()
    schema["required"] = ["spec"]
    if cel:
        add_rules(schema)
    return schema


def _describe_defaults(schema: Schema) -> None:
    """Append the default to each description, which is all that `kubectl explain` shows."""
    for field in schema.get("properties", {}).values():
        default = field.get("default")
        if isinstance(default, _PLAIN) and default != "":
            field["description"] += f" Default: {json.dumps(default)}."
        _describe_defaults(field)
    for inside in ("items", "additionalProperties"):
        if inside in schema:
            _describe_defaults(schema[inside])


def _status() -> Schema:
    """The schema of the status, in which nothing is required: a missing field must never make a write fail."""
    written = RunStatus.model_json_schema(by_alias=True)
    status = structural(written, written["$defs"])
    _require_nothing(status)
    status["description"] = "State of the run, written by the operator."
    conditions = status["properties"]["conditions"]
    conditions |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    conditions["items"]["required"] = ["type", "status"]
    return status


def _require_nothing(schema: Schema) -> None:
    # The server would fill in a default, and the status would differ from what the operator wrote.
    for key in ("required", "default"):
        schema.pop(key, None)
    inside = [*schema.get("properties", {}).values()]
    inside += [schema[key] for key in ("items", "additionalProperties") if key in schema]
    for field in inside:
        _require_nothing(field)
