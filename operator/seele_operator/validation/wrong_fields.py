"""A SeeleRun with wrong fields: a line for each of them, and the rules that can be checked without them."""

import contextlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from functools import reduce
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic.alias_generators import to_snake

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import BadRunError
from seele_operator.validation.field_names import Path, field_schema, meant_fields
from seele_operator.validation.messages import problem
from seele_operator.validation.rules import ANYWHERE, LineCheck
from seele_trainer.frozen_model import FrozenModel

AnyModel = TypeVar("AnyModel", bound=FrozenModel)


def parsed(model: type[AnyModel], content: Mapping[str, Any]) -> AnyModel:
    """The model in plain data. Raises ValidationError."""
    # JSON mode is strict about types but turns lists into tuples. Only the names of the YAML are allowed.
    return model.model_validate_json(json.dumps(content), strict=True, by_alias=True, by_name=False)


class WrongFieldsError(BadRunError):
    """A SeeleRun with wrong fields. `problems` has a line for each of them."""

    def __init__(self, problems: Iterable[str], readable: SeeleRunSpec | None) -> None:
        super().__init__(problems)
        self._readable = readable

    def broken(self, checks: Iterable[LineCheck]) -> list[str]:
        """What the checks find without reading a wrong field."""
        return [] if self._readable is None else _lines(self._readable, checks)


def wrong_fields(body: Mapping[str, Any], error: ValidationError) -> WrongFieldsError:
    """The error for a SeeleRun that pydantic refuses with `error`."""
    errors = error.errors(include_url=False)
    readable_part = _readable_part(body.get("spec"))
    if readable_part is None:
        return WrongFieldsError(map(problem, errors), None)
    spec, wrong = readable_part
    readable = _without(spec, wrong)
    lines = _lines(readable, ANYWHERE)

    def default_fits(path: Path) -> bool:
        # Thousands of keys may be wrong, and the operator parses any run that a user creates: only fields with a default
        # are worth checking all rules again.
        return "default" not in field_schema(path) or _lines(_without(spec, wrong - {path[1:]}), ANYWHERE) == lines

    return WrongFieldsError([problem(one, default_fits(one["loc"])) for one in errors], readable)


def _readable_part(spec: object) -> tuple[SeeleRunSpec, set[Path]] | None:
    """The spec with defaults in place of its wrong fields, and their paths; None if nothing can be read."""
    if not isinstance(spec, dict):
        return None
    spec, wrong = deepcopy(spec), set[Path]()
    while True:
        wrong |= _fill_in_required(spec)
        try:
            return parsed(SeeleRunSpec, spec), wrong
        except ValidationError as error:
            errors = error.errors(include_url=False)
        # A field that is missing is not there to be removed: its section is.
        removed = {one["loc"][:-1] if one["type"] == "missing" else one["loc"] for one in errors}
        if not all(removed) or not [path for path in removed if _remove(spec, path)]:
            return None
        wrong |= removed
        misspelt = [("spec", *one["loc"]) for one in errors if one["type"] == "extra_forbidden"]
        wrong |= {field[1:] for path in misspelt for field in meant_fields(path)}


def _fill_in_required(spec: dict[str, Any]) -> set[Path]:
    """Fill in a model and a data set if the spec has none. Returns the paths of what is not the user's."""
    filled: set[Path] = set()
    for section, names in (("model", ("name",)), ("dataset", ("name", "path"))):
        given = spec.get(section)
        if not isinstance(given, dict):
            spec[section] = {"name": "any"}
            filled.add((section,))
        elif all(given.get(name) is None for name in names):
            given["name"] = "any"
            filled |= {(section, name) for name in names}
    return filled


def _remove(section: dict[str, Any], path: Path) -> bool:
    """Remove the field at `path`, or the list that it is in. Returns whether there was one."""
    inner = section.get(str(path[0]))
    if len(path) > 1 and isinstance(inner, dict):
        return _remove(inner, path[1:])
    return section.pop(str(path[0]), section) is not section


def _without(spec: SeeleRunSpec, paths: Iterable[Path]) -> SeeleRunSpec:
    """A copy of the spec in which reading a field at one of the paths raises AttributeError."""
    return reduce(_without_one, paths, spec)


def _without_one(section: AnyModel, path: Path) -> AnyModel:
    name = to_snake(str(path[0]))
    copy = section.model_copy()
    inner = copy.__dict__.pop(name, None)
    if len(path) > 1 and isinstance(inner, FrozenModel):
        copy.__dict__[name] = _without_one(inner, path[1:])
    return copy


def _lines(spec: SeeleRunSpec, checks: Iterable[LineCheck]) -> list[str]:
    lines: list[str] = []
    for check in checks:
        # The check reads a wrong field, or its message names a section that is wrong.
        with contextlib.suppress(AttributeError, KeyError):
            lines.extend(check(spec))
    return lines
