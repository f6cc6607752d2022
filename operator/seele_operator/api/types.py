"""Names that a user gives, and what Kubernetes allows in them."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

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

OWNED_FLAGS = {
    "model": "set spec.model.name",
    "tokenizer": "set spec.model.name to a model that comes with its tokenizer",
    "revision": "set spec.model.revision",
    "trust-remote-code": "set spec.model.trustRemoteCode",
    "dtype": "set spec.model.dtype",
    "max-model-len": "set spec.rollout.maxModelLen",
    "tensor-parallel-size": "set spec.rollout.tensorParallelSize",
    "seed": "set spec.training.seed",
    "weight-transfer-config": "set spec.rollout.weightTransport",
    "host": "remove it: Seele gives each server its address",
    "port": "remove it: Seele gives each server its port",
    "served-model-name": "remove it: Seele names the model it serves",
    "logprobs-mode": "remove it: training needs processed_logprobs",
}
"""Flags that come from other fields, or that training depends on, each with what to do instead."""


def _flag(name: str) -> str:
    plain = name.lstrip("-").replace("_", "-")
    if plain in OWNED_FLAGS:
        raise ValueError(f"is set by Seele itself; {OWNED_FLAGS[plain]}")
    if plain != name:
        raise ValueError(
            f"is not how flags are written here; write it without leading dashes and with hyphens: {plain}"
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", name):
        raise ValueError("is not a flag of vLLM; write its long name without dashes, such as gpu-memory-utilization")
    return name


def _value(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("is not a finite number; write the number that the flag takes")
    if not isinstance(value, (str, int, float, bool)):
        raise ValueError("is not a single value; write text, a number, or true for a flag without a value")
    return value


EngineFlag = Annotated[str, AfterValidator(_flag)]
"""Long name of a flag of vLLM, without the leading dashes."""

EngineValue = Annotated[
    str | int | float | bool,
    BeforeValidator(_value),
    WithJsonSchema({"x-kubernetes-preserve-unknown-fields": True}),
]
"""Value of a flag of vLLM; true stands for a flag without a value, false leaves it out."""

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}

_PATTERN = re.compile(
    r"(?P<number>\d+(\.\d*)?|\.\d+)((?P<suffix>[numkMGTPE]|[KMGTPE]i)|[eE](?P<exponent>[+-]?\d{1,2}))?"
)


def amount(quantity: str) -> Decimal:
    """The plain number that a quantity stands for: `amount("500m") == Decimal("0.5")`. Raises ValueError."""
    match = _PATTERN.fullmatch(quantity)
    if match is None:
        raise ValueError("is not a Kubernetes quantity; write a number with a unit, such as 500m, 4, 512Mi or 8Gi")
    number = Decimal(match["number"])
    if match["exponent"] is not None:
        return number * Decimal(10) ** int(match["exponent"])
    return number * _SUFFIXES[match["suffix"] or ""]


def _quantity(value: object) -> str:
    if isinstance(value, float):
        # The API server's int-or-string refuses fractions in a custom resource.
        raise ValueError(
            f"is a bare fraction; put it in quotes ({str(value)!r}) or write it in thousandths, such as 500m"
        )
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError("is not a Kubernetes quantity; write a number with a unit, such as 500m, 4, 512Mi or 8Gi")
    amount(str(value))
    return str(value)


Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity, kept as text."""
