"""Values that a user writes: the error for wrong ones, and types for names, paths, flags and quantities."""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

_SHOWN = 60


class BadRunError(ValueError):
    """An invalid SeeleRun. `problems` has a line for each reason: field, value, and remedy."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def yaml_path(path: Sequence[str | int]) -> str:
    """A place in a YAML document: `spec.trainer.env[0].name`, or `spec.trainer.resources.limits["nvidia.com/gpu"]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif re.fullmatch(r"[A-Za-z_][\w-]*", part):
            text += f".{part}" if text else part
        else:
            text += f"[{json.dumps(part, ensure_ascii=False)}]"
    return text or "the file"


def shown(value: object) -> str:
    """A value as one short line of YAML; only the kind of a mapping or list."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def nearest(word: str, known: Sequence[str]) -> str | None:
    """The known word that is most similar, ignoring case; None if none is similar."""
    by_lower = {name.lower().replace("_", ""): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("_", ""), list(by_lower), n=1, cutoff=0.65)
    return by_lower[found[0]] if found else None


MAX_NAME_LENGTH = 40
"""Pods and Services are named after the run, with a suffix, and may have 63 characters."""

MAX_OBJECT_NAME_LENGTH = 253
"""Limit of Kubernetes; the names of environment variables are limited to it, too."""

RESERVED_ENVIRONMENT = frozenset({"MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "HF_HOME"})
"""Environment variables that the plan sets, besides those that start with SEELE_."""

SET_BY_SEELE = "is set by Seele itself; remove it"

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""The form of the name of a model or data set on the Hugging Face Hub."""

ABSOLUTE_PATH = "is not an absolute path: start it with `/` and leave out `..`"

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"


@dataclass(frozen=True)
class Syntax:
    """A regular expression that Python and CEL (RE2) read alike, and the message for text that does not match."""

    pattern: str
    message: str
    repaired: Callable[[str], str] = str
    """Turns text that does not match into similar text that usually does."""

    @property
    def cel(self) -> str:
        """The rule in CEL for a field of this syntax."""
        return f"self.matches('^{self.pattern}$')"

    def check(self, text: str) -> str:
        """`text` itself. Raises ValueError if it does not match."""
        if not re.fullmatch(self.pattern, text):
            near = self.repaired(text)
            example = f", such as {near}" if re.fullmatch(self.pattern, near) else ""
            raise ValueError(f"{self.message}{example}")
        return text


DNS_LABEL = Syntax(
    _LABEL,
    "is not a valid DNS label; use lowercase letters, digits and hyphens, with a letter or digit at both ends",
    lambda text: re.sub("[^a-z0-9]+", "-", text.lower()).strip("-"),
)

OBJECT_NAME = Syntax(
    f"{_LABEL}([.]{_LABEL})*",
    "is not a valid Kubernetes name: use lowercase letters, digits, hyphens and dots",
    lambda text: re.sub("[^a-z0-9.]+", "-", text.lower()).strip("-."),
)

ENVIRONMENT_NAME = Syntax(
    "[A-Za-z_][A-Za-z0-9_]*",
    "is not a valid environment variable name; use letters, digits and underscores",
    lambda text: re.sub("[^A-Za-z0-9]+", "_", text),
)

QUANTITY = Syntax(
    "([0-9]+([.][0-9]*)?|[.][0-9]+)([numkMGTPE]|[KMGTPE]i|[eE][+-]?[0-9]{1,2})?",
    "is not a Kubernetes quantity; write a number with a unit, such as 500m, 4, 512Mi or 8Gi",
)


def _run_name(name: str) -> str:
    if not re.fullmatch(f"(?=[a-z]){_LABEL}", name):
        near = DNS_LABEL.repaired(name)
        near = near if near[:1].isalpha() else f"run-{near}"
        raise ValueError(
            f"is not a valid name for a run; use {near[:MAX_NAME_LENGTH].rstrip('-')} "
            "(lowercase letters, digits and hyphens, with a letter first)"
        )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(f"has {len(name)} characters; use at most {MAX_NAME_LENGTH}, as pods are named after it")
    return name


def _absolute(path: str) -> str:
    if not path.startswith("/"):
        unexpanded = "a ~ is not expanded; " if path.startswith("~") else ""
        example = f"/var/lib/seele/{PurePosixPath(path).name.strip('.~') or 'runs'}"
        raise ValueError(f"is not an absolute path: {unexpanded}start it with `/`, as in {example}")
    if ".." in path.split("/"):
        raise ValueError("contains `..`; write the path without it")
    return path


def _environment_name(name: str) -> str:
    if name.startswith("SEELE_") or name in RESERVED_ENVIRONMENT:
        raise ValueError(SET_BY_SEELE)
    return ENVIRONMENT_NAME.check(name)


DnsLabel = Annotated[str, AfterValidator(DNS_LABEL.check)]
"""Name of a namespace."""

RunName = Annotated[str, AfterValidator(_run_name)]
"""Name of a run, short enough for the names that derive from it."""

# Without a length in the CRD the API server estimates the rules about these names as too expensive.
_Short = Annotated[str, Field(max_length=MAX_OBJECT_NAME_LENGTH)]

ObjectName = Annotated[_Short, AfterValidator(OBJECT_NAME.check)]
"""Name of any other Kubernetes object."""

AbsolutePath = Annotated[str, AfterValidator(_absolute)]
"""Absolute path on a node."""

EnvironmentName = Annotated[_Short, AfterValidator(_environment_name)]
"""Name of an environment variable that a user may set."""

OWNED_FLAGS = {
    "model": "set spec.model.name",
    "tokenizer": "set spec.model.name to a model that includes its tokenizer",
    "revision": "set spec.model.revision",
    "trust-remote-code": "set spec.model.trustRemoteCode",
    "dtype": "set spec.model.dtype",
    "max-model-len": "set spec.rollout.maxModelLen",
    "tensor-parallel-size": "set spec.rollout.tensorParallelSize",
    "seed": "set spec.training.seed",
    "weight-transfer-config": "set spec.rollout.weightTransport",
    "host": "remove it: Seele assigns each server its address",
    "port": "remove it: Seele assigns each server its port",
    "served-model-name": "remove it: Seele names the served model",
    "logprobs-mode": "remove it: training needs processed_logprobs",
}
"""Flags of vLLM that follow from other fields or that training depends on, each with what to do instead."""


def _flag(name: str) -> str:
    plain = name.lstrip("-").replace("_", "-")
    if plain in OWNED_FLAGS:
        raise ValueError(f"is set by Seele itself; {OWNED_FLAGS[plain]}")
    if plain != name:
        raise ValueError(
            f"is not how flags are written here; write it without leading dashes and with hyphens: {plain}"
        )
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9.-]*", name):
        raise ValueError(
            "is not a flag of vLLM; write a long name without leading dashes, such as gpu-memory-utilization"
        )
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
"""Value of a flag of vLLM. True passes the flag without a value, and false omits it."""

_LONGEST_QUANTITY = 40
BARE_FRACTION = "is a fraction without a unit"

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    **{suffix: Decimal(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)},
    **{suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), start=1)},
}


def amount(quantity: str) -> Decimal:
    """The number that a quantity stands for: `amount("500m") == Decimal("0.5")`. Raises ValueError."""
    match = re.fullmatch(QUANTITY.pattern, quantity)
    if match is None or len(quantity) > _LONGEST_QUANTITY:
        raise ValueError(QUANTITY.message)
    number, unit = Decimal(match[1]), match[3] or ""
    return number * (_SUFFIXES[unit] if unit in _SUFFIXES else Decimal(10) ** int(unit[1:]))


def is_device(resource: str) -> bool:
    """Whether a resource is a device, such as `nvidia.com/gpu`, which Kubernetes counts in whole numbers."""
    return "/" in resource and "kubernetes.io/" not in resource


def _quantity(value: object) -> str:
    if isinstance(value, float):
        # The API server accepts no fractions in an int-or-string of a custom resource.
        raise ValueError(BARE_FRACTION)
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise ValueError(QUANTITY.message)
    amount(str(value))
    return str(value)


Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}),
]
"""A Kubernetes quantity, kept as text."""
