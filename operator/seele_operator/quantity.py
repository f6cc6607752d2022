"""Kubernetes quantities, such as `500m`, `8Gi` or `2`."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

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
