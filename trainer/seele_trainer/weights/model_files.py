"""A model's tokenizer and configuration, from a folder or from the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from seele_trainer.config import Model
from seele_trainer.weights.prepare import BadModelError


def load_tokenizer(model: Model) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Raises BadModelError."""
    with _load_errors(model, "tokenizer"):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
        return tokenizer


def context_length(model: Model) -> int:
    """Longest sequence in tokens: the run's setting, or else the model's maximum. Raises BadModelError."""
    if model.context_length is not None:
        return model.context_length
    with _load_errors(model, "config.json"):
        found = AutoConfig.from_pretrained(
            model.name, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    longest = getattr(found, "max_position_embeddings", None)
    if longest is None:
        raise BadModelError(
            f"model.name is {model.name!r}, whose config.json has no max_position_embeddings: set model.contextLength"
        )
    return int(longest)


@contextmanager
def _load_errors(model: Model, part: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BadModelError(
            f"model.name is {model.name!r}, whose {part} cannot be loaded: {reason} "
            "Give the path of a model folder, or check the id, HF_TOKEN and the network"
        ) from error
