"""Names that a user gives, and what Kubernetes allows in them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

MAX_NAME_LENGTH = 40
"""Names of pods and services are the run's name and a suffix, and may have 63 characters."""
MAX_OBJECT_NAME_LENGTH = 253
"""What Kubernetes allows; environment variables get no more either."""
RESERVED_ENVIRONMENT = frozenset({"MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "HF_HOME"})
"""Environment variables that the plan sets, besides all that begin with SEELE_."""


def _dns_label(name: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
        raise ValueError("is no DNS label; use small letters, digits and hyphens, with a letter or digit at both ends")
    return name


def _run_name(name: str) -> str:
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"has {len(name)} characters; use at most {MAX_NAME_LENGTH}, as pod names derive from it")
    if not re.match(r"[a-z]", name):
        raise ValueError("does not begin with a small letter; names of services must")
    return _dns_label(name)


def _object_name(name: str) -> str:
    if len(name) > MAX_OBJECT_NAME_LENGTH or not re.fullmatch(
        r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", name
    ):
        raise ValueError("is no name of a Kubernetes object; use small letters, digits, hyphens and dots")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("is no absolute path; begin it with / and leave out ..")
    return path


def _environment_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError("is no name of an environment variable; use letters, digits and underscores")
    if len(name) > MAX_OBJECT_NAME_LENGTH:
        raise ValueError(f"has {len(name)} characters; use at most {MAX_OBJECT_NAME_LENGTH}")
    if name.startswith("SEELE_") or name in RESERVED_ENVIRONMENT:
        raise ValueError("is set by Seele itself; remove it")
    return name


DnsLabel = Annotated[str, AfterValidator(_dns_label)]
"""Name of a namespace."""
RunName = Annotated[str, AfterValidator(_run_name)]
"""Name of a run, short enough for names that derive from it."""
_Short = WithJsonSchema({"type": "string", "maxLength": MAX_OBJECT_NAME_LENGTH})
# The CRD says the length, without which the API server would think its own rules about these names too expensive.
ObjectName = Annotated[str, AfterValidator(_object_name), _Short]
"""Name of any other Kubernetes object."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
"""Absolute path on a node."""
EnvironmentName = Annotated[str, AfterValidator(_environment_name), _Short]
"""Name of an environment variable that a user may set."""
