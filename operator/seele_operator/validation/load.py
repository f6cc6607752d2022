"""Reads and checks a SeeleRun, and reports everything that is wrong with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import BadRunError, nearest, yaml_path
from seele_operator.api.yaml_files import read_run_file
from seele_operator.validation.local_files import local_files
from seele_operator.validation.rules import ANYWHERE, LineCheck, check_cluster, check_run
from seele_operator.validation.wrong_fields import WrongFieldsError, parsed, wrong_fields

__all__ = ["check_cluster", "check_run", "checked_run", "load_run", "parse_run", "validate_file"]

_METADATA_FIELDS = ("name", "namespace", "labels", "annotations")

_METADATA_OF_THE_SERVER = (
    *("uid", "generateName", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
    *("generation", "managedFields", "ownerReferences", "resourceVersion", "selfLink"),
)


def parse_run(body: Mapping[str, Any]) -> SeeleRun:
    """The SeeleRun in plain data from the API server or a file. Raises WrongFieldsError."""
    try:
        return parsed(SeeleRun, body)
    except ValidationError as error:
        raise wrong_fields(body, error) from error


def checked_run(body: Mapping[str, Any], *more: LineCheck) -> SeeleRun:
    """The SeeleRun in the content of a file, after the rules and `more` checks. Raises BadRunError with all problems.

    If fields are wrong, only what needs none of them is checked.
    """
    metadata = body.get("metadata")
    # The API server may add unknown fields to metadata; in a file they are typos.
    names = metadata if isinstance(metadata, dict) else ()
    known = (*_METADATA_FIELDS, *_METADATA_OF_THE_SERVER)
    problems = [_unknown_metadata(name) for name in names if name not in known]
    checks = (*ANYWHERE, *more)
    try:
        run = parse_run(body)
    except WrongFieldsError as error:
        raise BadRunError([*problems, *error.problems, *error.broken(checks)]) from error
    problems += [line for check in checks for line in check(run.spec)]
    if problems:
        raise BadRunError(problems)
    return run


def load_run(path: str | Path) -> SeeleRun:
    """The SeeleRun in a YAML file, or on standard input for `-`, after the rules. Raises BadRunError with all problems."""
    return checked_run(read_run_file(path))


def validate_file(path: str | Path) -> SeeleRun:
    """The SeeleRun in a file, after all checks that need no cluster. Raises BadRunError with all problems.

    Relative paths of models and data sets start at the working directory, as in `seele run`.
    """
    return checked_run(read_run_file(path), *local_files(Path.cwd()))


def _unknown_metadata(name: str) -> str:
    near = nearest(name, _METADATA_FIELDS)
    remedy = f"did you mean {near}?" if near else f"remove it, or use one of {', '.join(_METADATA_FIELDS)}"
    return f"{yaml_path(('metadata', name))}: is not a field; {remedy}"
