"""Tensors in safetensors files: checked without reading them, copied byte by byte, and the tied ones among them.

This unties a model without loading it, and without the seconds that importing torch takes. A file consists of eight
bytes with the length of the header (little endian), the header (JSON with the dtype, shape and byte range of each
tensor), and the data.
"""

import json
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_COPY_BYTES = 16 * 2**20
HEAD = "lm_head.weight"
# Suffixes of the name of the input embedding in the architectures that vLLM serves.
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")


class BadSafetensors(ValueError):
    """A file is not a complete safetensors file."""


class UntieError(ValueError):
    """A model declares tied embeddings, but its embedding cannot be found."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the bytes of a tensor are: `size` bytes of `file`, beginning at byte `start`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def check_safetensors(file: Path) -> None:
    """Check the header and size of a file. Raises BadSafetensors unless it is a complete safetensors file."""
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        return  # an installation without the trainer extra, which loads no models
    try:
        with safe_open(file, framework="numpy"):
            pass
    except SafetensorError as error:
        raise BadSafetensors(
            f"{file} is not a complete safetensors file ({error}): download or export it again"
        ) from error


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, from its header alone. Raises BadSafetensors for any other file."""
    check_safetensors(file)
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        tensors[name] = StoredTensor(file, entry["dtype"], tuple(entry["shape"]), 8 + length + start, end - start)
    return tensors


def copy_tensors(target: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a safetensors file with these tensors, in this order, copied from the files that hold them."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.size],
        }
        offset += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with target.open("wb") as written:
        written.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            _copy(tensor, written)


def _copy(tensor: StoredTensor, written: BinaryIO) -> None:
    with tensor.file.open("rb") as stream:
        stream.seek(tensor.start)
        left = tensor.size
        while left:
            block = stream.read(min(left, _COPY_BYTES))
            if not block:
                raise BadSafetensors(f"{tensor.file} was truncated while it was read: run the command again")
            written.write(block)
            left -= len(block)


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

    config.json may omit the architecture's default. Then the tensors decide: a head that is not stored is tied.
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
