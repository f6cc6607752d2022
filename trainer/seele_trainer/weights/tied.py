"""Models whose output head is their input embedding: how to recognise them, and the names of both tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

HEAD = "lm_head.weight"
# Suffixes of the name of the input embedding in the architectures that vLLM serves.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


class UntieError(ValueError):
    """A model declares tied embeddings, but its embedding cannot be found."""


def looks_like_embedding(name: str) -> bool:
    """Whether a tensor of this name is the input embedding of a language model."""
    return name.endswith(_EMBEDDINGS) and "visual" not in name


def embedding_name(names: Collection[str]) -> str:
    """The tensor that holds the input embedding. Raises UntieError unless there is exactly one."""
    found = [name for name in names if looks_like_embedding(name)]
    if len(found) != 1:
        raise UntieError(
            f"the model ties its output head to its embedding, but {len(found)} tensors look like one ({found}): "
            "use a model that is not tied, or set rollout.untieEmbeddings: false with a transport that can serve it"
        )
    return found[0]


def is_tied(model_config: Mapping[str, Any], names: Collection[str]) -> bool:
    """Whether a checkpoint's head is its embedding.

    config.json may omit the architecture's default. The tensors then decide: a head that is not stored is the embedding.
    """
    declared = model_config.get("tie_word_embeddings")
    return declared if isinstance(declared, bool) else HEAD not in names


def untied(model_config: Mapping[str, Any]) -> dict[str, Any]:
    """The same config.json, for a folder that stores the head."""
    changed = {**model_config, "tie_word_embeddings": False}
    nested = changed.get("text_config")
    if isinstance(nested, Mapping) and "tie_word_embeddings" in nested:
        changed["text_config"] = {**nested, "tie_word_embeddings": False}
    return changed
