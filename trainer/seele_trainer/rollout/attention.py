"""Which of transformers' attention implementations a model needs. Learner and in-process engine must use the same.

Imports nothing, so that it serves both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def attention_for(model_config: Any) -> str | None:
    """The `attn_implementation` to load a model with, from its transformers configuration.

    `eager` if attention scores are capped (Gemma 2): `sdpa` ignores the cap without an error. Otherwise None, with which
    transformers takes `sdpa`, or `eager` for architectures that it cannot compute otherwise, such as those with sinks
    (GPT-OSS).
    """
    capped = any(
        value and "softcap" in name and ("attn" in name or "attention" in name)
        for part in configurations(model_config)
        for name, value in vars(part).items()
    )
    return "eager" if capped else None


def configurations(model_config: Any) -> Iterator[Any]:
    """A transformers configuration and those nested in it, such as the `text_config` of a model that also sees images."""
    yield model_config
    for value in vars(model_config).values():
        if hasattr(value, "to_json_string"):
            yield from configurations(value)
