"""Tensors in safetensors files: checked without reading them, and copied byte by byte.

This unties a model without loading it, and without the seconds that importing torch takes. A file has eight bytes with
the header's length (little endian), the header (JSON with the dtype, shape and byte range of each tensor), and the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_COPY_BYTES = 16 * 2**20


class BadSafetensors(ValueError):
    """A file is not a complete safetensors file."""


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
