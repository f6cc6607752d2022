"""The final answer as data sets write it, turned into text."""

from __future__ import annotations

import math
from decimal import Decimal


def answer_text(value: object) -> str | None:
    """A text, a number or a list of one of them as text; None for anything else, and for what is empty.

    A number is written in plain decimals without trailing zeros: 27.0 is "27", 1e-3 is "0.001".
    """
    if isinstance(value, list) and len(value) == 1:
        return answer_text(value[0])
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        plain = format(Decimal(repr(value)), "f")
        return plain.rstrip("0").rstrip(".") if "." in plain else plain
    return None
