"""Turns pydantic's errors about a SeeleRun into messages with the field's place in the YAML, the value, and a remedy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from pydantic_core import ErrorDetails

from seele_operator.api.types import nearest, shown, yaml_path
from seele_operator.validation.schema import Schema, run_schema

_KEY = "[key]"
"""What pydantic appends to the place of an error in the key of a mapping."""

_WRONG_TYPE = {
    "int": ("is not a whole number", "write it with digits only, without quotes"),
    "float": ("is not a number", "write it with digits, without quotes"),
    "bool": ("is neither true nor false", "write true or false, without quotes"),
    "string": ("is not text", "put it in quotes"),
    "model": ("is not a mapping", "write its fields below it, each as `name: value`"),
    "dict": ("is not a mapping", "write its entries below it, each as `name: value`"),
    "tuple": ("is not a list", "write each entry on a line of its own, after `- `"),
}

_BOUNDS = {
    "greater_than": ("gt", "is not above"),
    "greater_than_equal": ("ge", "is below"),
    "less_than": ("lt", "is not below"),
    "less_than_equal": ("le", "is above"),
}


def problem(error: ErrorDetails) -> str:
    """An error of pydantic as one line: `spec.hints.targetAccuracy: 1.5 is not below 1; use a number …`."""
    path = tuple(error["loc"])
    if path and path[-1] == _KEY and not field_schema(path[:-1]).keys() & {"properties", "additionalProperties"}:
        # Not a field that is really named so.
        return f"{yaml_path(path[:-1])}: {_message(error)}"
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    place = yaml_path(path)
    schema = field_schema(path)
    if kind == "missing" and isinstance(path[-1], int):
        return f"{yaml_path(path[:-1])}: has too few entries; {_count(field_schema(path[:-1]))}"
    if kind == "missing":
        return f"{place}: is missing; add it{_description(schema)}"
    if kind == "extra_forbidden":
        return f"{place}: is not a field; {_known_field(path)}"
    if kind == "value_error":
        return f"{place}: {_valued(value)}{_message(error)}"
    if value is None:
        return f"{place}: has no value; give it one, or remove the line{_description(schema)}"
    if kind == "literal_error":
        return f"{place}: {shown(value)} is not a possible value; {_choice(value, schema)}"
    if kind in _BOUNDS:
        limit, relation = _BOUNDS[kind]
        return f"{place}: {shown(value)} {relation} {_number(limits[limit])}; {_range(schema)}"
    if kind in {"too_long", "too_short"}:
        return f"{place}: has too {'many' if kind == 'too_long' else 'few'} entries; {_count(schema)}"
    if kind == "string_too_long":
        return f"{place}: has {len(value)} characters; use at most {limits['max_length']}"
    if kind == "string_too_short":
        return f"{place}: is empty; give it a value{_description(schema)}"
    if kind == "finite_number":
        return f"{place}: {shown(value)} is not a finite number; {_range(schema)}"
    wrong, remedy = _WRONG_TYPE.get(kind.split("_")[0], ("is not accepted", error["msg"]))
    return f"{place}: {shown(value)} {wrong}; {remedy}"


def field_schema(path: Sequence[str | int]) -> Schema:
    """The structural schema of a field by its path from the root of a SeeleRun; empty if there is no such field."""
    schema = run_schema()
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        elif "properties" in schema:
            schema = schema["properties"].get(part, {})
        else:
            schema = schema.get("additionalProperties", {})
    return schema


def _message(error: ErrorDetails) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _valued(value: object) -> str:
    return "" if isinstance(value, (Mapping, list, tuple)) else f"{shown(value)} "


def _description(schema: Schema) -> str:
    text = schema.get("description", "").rstrip(".")
    return f" ({text})" if text else ""


def _known_field(path: Sequence[str | int]) -> str:
    name = str(path[-1])
    known = list(field_schema(path[:-1]).get("properties", {}))
    near = nearest(name, known)
    if near is not None:
        return f"did you mean {near}?"
    elsewhere = _places().get(name, ())
    if len(elsewhere) == 1:
        return f"did you mean {elsewhere[0]}?"
    return f"remove it, or use one of {', '.join(known)}"


@cache
def _places() -> dict[str, tuple[str, ...]]:
    """The places of each field name in a SeeleRun."""

    def fields(schema: Schema, path: tuple[str | int, ...]) -> Iterator[tuple[str, ...]]:
        for name, inner in schema.get("properties", {}).items():
            yield name, yaml_path((*path, name))
            yield from fields(inner, (*path, name))

    places: dict[str, tuple[str, ...]] = {}
    for name, place in fields(run_schema()["properties"]["spec"], ("spec",)):
        places[name] = (*places.get(name, ()), place)
    return places


def _choice(value: object, schema: Schema) -> str:
    choices = schema.get("enum", [])
    if len(choices) == 1:
        return f"write {choices[0]}"
    near = nearest(value, [choice for choice in choices if isinstance(choice, str)]) if isinstance(value, str) else None
    listed = f"use one of {', '.join(str(choice) for choice in choices)}"
    return f"did you mean {near}? ({listed})" if near else listed


def _range(schema: Schema) -> str:
    kind = "a whole number" if schema.get("type") == "integer" else "a number"
    bounds = []
    if "minimum" in schema:
        bounds.append(f"{'above' if schema.get('exclusiveMinimum') else 'of at least'} {_number(schema['minimum'])}")
    if "maximum" in schema:
        bounds.append(f"{'below' if schema.get('exclusiveMaximum') else 'at most'} {_number(schema['maximum'])}")
    example = schema.get("default")
    such_as = f", such as {json.dumps(example)}" if isinstance(example, (int, float)) else ""
    return " ".join(["use", kind, *([" and ".join(bounds)] if bounds else [])]) + such_as


def _number(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _count(schema: Schema) -> str:
    if "maxItems" not in schema:
        return f"give at least {schema.get('minItems', 1)}"
    if schema.get("minItems") != schema["maxItems"]:
        return f"give at most {schema['maxItems']}"
    example = f", such as {json.dumps(schema['default'])}" if "default" in schema else ""
    return f"give {schema['maxItems']}{example}"
