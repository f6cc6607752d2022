"""Models whose output head is their input embedding: how to tell them, and the names of the two tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

HEAD = "lm_head.weight"
# Ends of the names under which the architectures that vLLM serves keep their input embedding.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


class UntieError(ValueError):
    """A model says that its embeddings are tied, and its embedding cannot be found."""


def looks_like_embedding(name: str) -> bool:
    """Whether a tensor of this name is the input embedding of a language model."""
    return name.endswith(_EMBEDDINGS) and "visual" not in name


def embedding_name(names: Collection[str]) -> str:
    """The tensor that holds the input embedding. Raises UntieError where there is not exactly one."""
    found = [name for name in names if looks_like_embedding(name)]
    if len(found) != 1:
        raise UntieError(
            f"the model ties its output head to its embedding, and {len(found)} tensors look like one ({found}): "
            "use a model that is not tied, or set rollout.untieEmbeddings: false with a transport that can serve it"
        )
    return found[0]


def is_tied(model_config: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a checkpoint's head is its embedding.

    config.json leaves out what is the architecture's default, so where it is silent the tensors tell: a head that is
    not stored has to be the embedding.
    """
    said = model_config.get("tie_word_embeddings")
    return said if isinstance(said, bool) else HEAD not in names


def untied(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """The same config.json, for a folder that stores its head."""
    changed = {**model_config, "tie_word_embeddings": False}
    nested = changed.get("text_config")
    if isinstance(nested, Mapping) and "tie_word_embeddings" in nested:
        changed["text_config"] = {**nested, "tie_word_embeddings": False}
    return changed
