"""Turns pydantic's errors about a SeeleRun into messages with the field's place in the YAML, the value, and a remedy."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from pydantic_core import ErrorDetails

from seele_operator.api.types import BARE_FRACTION, QUANTITY, nearest, shown, yaml_path
from seele_operator.validation.field_names import Path, field_schema, meant_fields
from seele_operator.validation.schema import Schema
from seele_trainer.config import DATA_SUFFIXES

_KEY = "[key]"
"""What pydantic appends to the place of an error in the key of a mapping."""

_MAX_NAMES = 10
"""The largest number of field names in one line."""

_MAX_PLACES = 3
"""The largest number of fields that a line suggests for one name."""

_BOUNDS = {
    "greater_than": ("gt", "is not above"),
    "greater_than_equal": ("ge", "is below"),
    "less_than": ("lt", "is not below"),
    "less_than_equal": ("le", "is above"),
}


def problem(error: ErrorDetails, default_fits: bool = True) -> str:
    """An error of pydantic as one line: `spec.hints.targetAccuracy: 1.5 is not below 1; use a number …`.

    The line suggests the field's default unless that does not fit the rest of the run.
    """
    path = tuple(error["loc"])
    if path and path[-1] == _KEY and not field_schema(path[:-1]).keys() & {"properties", "additionalProperties"}:
        # Not a field that is really named so.
        return f"{yaml_path(path[:-1])}: {_message(error)}"
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    place = yaml_path(path)
    schema = field_schema(path)
    if not default_fits:
        schema = {key: entry for key, entry in schema.items() if key != "default"}
    if kind == "missing" and isinstance(path[-1], int):
        return f"{yaml_path(path[:-1])}: has too few entries; {_count(field_schema(path[:-1]))}"
    if kind == "missing":
        return f"{place}: is missing; add it{_description(schema)}"
    if kind == "extra_forbidden":
        return f"{place}: is not a field; {_known_field(path)}"
    if kind == "value_error" and _message(error) in {QUANTITY.message, BARE_FRACTION}:
        return f"{place}: {shown(value)} {_message(error).split(';')[0]}; {_quantity(str(path[-1]), value)}"
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
    return f"{place}: {shown(value)} {_wrong_type(kind, value, schema) or f'is not accepted; {_message(error)}'}"


def _wrong_type(kind: str, value: object, schema: Schema) -> str:
    """What is wrong with a value of another type, and the remedy; empty for other errors."""
    match kind.split("_")[0]:
        case "int":
            written = "written as " if isinstance(value, float) and value.is_integer() else ""
            return f"is not {written}a whole number; {_as_number(value, schema)}"
        case "float":
            return f"is not a number; {_as_number(value, schema)}"
        case "bool":
            quoted = isinstance(value, str) and value.lower() in {"true", "false", "yes", "no", "on", "off"}
            return "is neither true nor false; write true or false" + (", without quotes" if quoted else "")
        case "string":
            if isinstance(value, (Mapping, list, tuple)):
                return "is not text; write one value"
            return f'is not text; put it in quotes: "{shown(value)}"'
        case "model":
            return f"is not a mapping; {_as_section(value, schema)}"
        case "dict":
            return "is not a mapping; write its entries below it, each as `name: value`"
        case "tuple":
            return "is not a list; write each entry on a line of its own, after `- `"
    return ""


def _as_number(value: object, schema: Schema) -> str:
    """How to write the number that the value seems to stand for, or which numbers are possible."""
    integer = schema.get("type") == "integer"
    if isinstance(value, float) and integer and value.is_integer() and abs(value) < 2**53:
        return f"write {int(value)}"
    if isinstance(value, str) and re.fullmatch(r"-?\d+" if integer else r"-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", value):
        return f"write {value}, without quotes"
    return _range(schema)


def _as_section(value: object, schema: Schema) -> str:
    """How to write the section that the value seems to stand for, or what a section looks like."""
    fields = schema.get("properties", {})
    if isinstance(value, str) and value and value.isprintable():
        local = value.startswith((".", "/", "~")) or PurePosixPath(value).suffix in DATA_SUFFIXES
        if "hostPath" in fields:
            kind = f"hostPath: {{path: {value}}}" if local else f"persistentVolumeClaim: {{claimName: {value}}}"
            return f"write {kind} below it"
        for name in ("path" if local else "name", *schema.get("required", ())):
            if name in fields and fields[name].get("type") == "string":
                return f"write its fields below it, such as `{name}: {value}`"
    return f"write its fields below it, each as `name: value`: {_names(fields)}"


def _quantity(resource: str, value: object) -> str:
    """How to write an amount of a resource, or of bytes."""
    if resource == "cpu":
        thousandths = f"{value * 1000:g}m" if isinstance(value, float) else "500m"
        return f"write processors, such as 4, or thousandths of one, such as {thousandths}"
    if "/" in resource:
        return "write a whole number, such as 1"
    match = re.fullmatch(r"(\d+)\s*([kmgtpe])i?b?", str(value), re.IGNORECASE)
    number, unit = (match[1], match[2].upper()) if match else ("8", "G")
    decimal = "k" if unit == "K" else unit
    return f"write bytes with a unit, such as {number}{unit}i or {number}{decimal}"


def _message(error: ErrorDetails) -> str:
    return str(error["msg"]).removeprefix("Value error, ")


def _valued(value: object) -> str:
    return "" if isinstance(value, (Mapping, list, tuple)) else f"{shown(value)} "


def _description(schema: Schema) -> str:
    text = schema.get("description", "").rstrip(".")
    return f" ({text})" if text else ""


def _known_field(path: Path) -> str:
    meant = meant_fields(path)
    if 0 < len(meant) <= _MAX_PLACES:
        places = [str(field[-1]) if field[:-1] == path[:-1] else yaml_path(field) for field in meant]
        other_word = len(meant) == 1 and nearest(str(path[-1]), [str(meant[0][-1])]) is None
        purpose = field_schema(meant[0])["description"].rstrip(".").split(". ")[0] if other_word else ""
        return f"did you mean {' or '.join(places)}?" + (f" ({purpose})" if purpose else "")
    return f"remove it, or use one of {_names(field_schema(path[:-1]).get('properties', {}))}"


def _names(fields: Mapping[str, object]) -> str:
    """The names of fields, of which only the first ones if they are many."""
    names = list(fields)
    more = ", … (docs/seelerun.md lists all)" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def _choice(value: object, schema: Schema) -> str:
    choices = schema.get("enum", [])
    if len(choices) == 1:
        return f"write {choices[0]}"
    near = nearest(value, [choice for choice in choices if isinstance(choice, str)]) if isinstance(value, str) else None
    listed = f"one of {', '.join(str(choice) for choice in choices)}"
    return f"did you mean {near}? Use {listed}" if near else f"use {listed}"


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
