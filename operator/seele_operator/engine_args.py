"""Command line flags of vLLM that a run may set, and those that Seele sets itself."""

from __future__ import annotations

import math
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

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
