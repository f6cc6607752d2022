"""Reads and checks a SeeleRun, and reports everything that is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import BadRunError, nearest, yaml_path
from seele_operator.api.yaml_files import read_run_file
from seele_operator.validation.local_files import check_local_files
from seele_operator.validation.messages import problem
from seele_operator.validation.rules import check_cluster, check_run

__all__ = ["check_cluster", "check_run", "load_run", "parse_run", "read_run", "validate_file"]

_METADATA_FIELDS = ("name", "namespace", "labels", "annotations")

_METADATA_OF_THE_SERVER = (
    *("uid", "generateName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
    *("generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink"),
)


def parse_run(body: Mapping[str, Any]) -> SeeleRun:
    """The SeeleRun in plain data from the API server or a file. Raises BadRunError for wrong fields."""
    try:
        # JSON mode is strict about types but turns lists into tuples. Only the names of the YAML are allowed.
        return SeeleRun.model_validate_json(json.dumps(body), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise BadRunError([problem(details) for details in error.errors(include_url=False)]) from error


def load_run(path: str | Path) -> SeeleRun:
    """The SeeleRun in a YAML file, or on standard input for `-`. Raises BadRunError for wrong fields."""
    return read_run(read_run_file(path))


def read_run(body: Mapping[str, Any]) -> SeeleRun:
    """The SeeleRun in the content of a file. Raises BadRunError for wrong fields."""
    metadata = body.get("metadata")
    # The API server may add unknown fields to metadata; in a file they are typos.
    names = metadata if isinstance(metadata, dict) else ()
    known = (*_METADATA_FIELDS, *_METADATA_OF_THE_SERVER)
    problems = [_unknown_metadata(name) for name in names if name not in known]
    try:
        run = parse_run(body)
    except BadRunError as error:
        raise BadRunError([*problems, *error.problems]) from error
    if problems:
        raise BadRunError(problems)
    return run


def validate_file(path: str | Path) -> SeeleRun:
    """The SeeleRun in a file, after all checks that need no cluster. Raises BadRunError with all problems.

    Relative paths of models and data sets start at the working directory, as in `seele run`.
    """
    run = load_run(path)
    problems = [*check_run(run), *check_local_files(run, Path.cwd())]
    if problems:
        raise BadRunError(problems)
    return run


def _unknown_metadata(name: str) -> str:
    near = nearest(name, _METADATA_FIELDS)
    remedy = f"did you mean {near}?" if near else f"remove it, or use one of {', '.join(_METADATA_FIELDS)}"
    return f"{yaml_path(('metadata', name))}: is not a field; {remedy}"
