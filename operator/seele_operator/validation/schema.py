"""The OpenAPI v3.0 schema of a SeeleRun, in the structural form that CustomResourceDefinitions need.

pydantic writes JSON Schema 2020-12. Kubernetes needs OpenAPI v3.0 without references: `nullable` instead of a union
with null, boolean `exclusiveMinimum`, one schema for all entries of a list, and one type for each field.
"""

from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from seele_operator.api.seelerun import SeeleRun
from seele_trainer.frozen_model import FrozenModel

PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_KEPT = (
    *("description", "type", "format", "default", "enum", "required"),
    *("minItems", "maxItems", "minLength", "maxLength", "maxProperties", PRESERVE, _INT_OR_STRING),
)

Schema = dict[str, Any]


class _SparseDefaults(GenerateJsonSchema):
    """Writes only what differs from the defaults of a section's own fields as its default, usually `{}`."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, FrozenModel):
            return dft.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return super().encode_default(dft)


@cache
def run_schema() -> Schema:
    """Structural schema of the whole SeeleRun. All callers share it: copy it before changing it."""
    schema = SeeleRun.model_json_schema(by_alias=True, schema_generator=_SparseDefaults)
    return structural(schema, schema.get("$defs", {}))


def structural(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """A JSON schema of pydantic as a structural OpenAPI v3.0 schema, with references resolved from `definitions`."""
    schema = _resolved(schema, definitions)
    if "anyOf" in schema and _INT_OR_STRING not in schema:
        return _optional(schema, definitions)
    result = {key: deepcopy(schema[key]) for key in _KEPT if key in schema}
    if "description" in result:
        result["description"] = " ".join(result["description"].split())
    if "const" in schema:
        result["enum"] = [schema["const"]]
    return {**result, **_bounds(schema), **_inside(schema, definitions)}


def _optional(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    chosen = [branch for branch in schema["anyOf"] if branch.get("type") != "null"]
    if len(chosen) != 1 or len(schema["anyOf"]) != 2:
        raise ValueError("a union other than with null has no structural schema: give the field a schema of its own")
    # A null default adds nothing to `nullable`, and would be stored in every object.
    outer = {key: value for key, value in schema.items() if key != "anyOf" and (key, value) != ("default", None)}
    return {**structural({**_resolved(chosen[0], definitions), **outer}, definitions), "nullable": True}


def _resolved(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" not in schema:
        return schema
    target = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}


def _bounds(schema: Mapping[str, Any]) -> Schema:
    bounds = {key: schema[key] for key in ("minimum", "maximum") if key in schema}
    for inclusive, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if exclusive in schema:
            bounds |= {inclusive: schema[exclusive], exclusive: True}
    return bounds


def _inside(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    if _INT_OR_STRING in schema:
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        return {"properties": {name: structural(field, definitions) for name, field in schema["properties"].items()}}
    if "prefixItems" in schema:
        # Only tuples with the same type and bounds for all entries occur.
        return {"items": structural(schema["prefixItems"][0], definitions)}
    if schema.get("type") == "array":
        return {"items": structural(schema["items"], definitions)}
    if schema.get("type") == "object":
        values = schema.get("additionalProperties", True)
        return {PRESERVE: True} if values is True else {"additionalProperties": structural(values, definitions)}
    return {}
