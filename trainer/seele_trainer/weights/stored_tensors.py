"""Tensors as they lie in safetensors files, copied byte by byte.

What it takes to untie a model without loading it, and without the seconds that importing torch costs. The layout: eight
bytes with the header's length (little endian), the header (JSON: dtype, shape and byte range of each tensor), the data.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_HEADER_BYTES = 100_000_000
_COPY_BYTES = 16 * 2**20


class BadSafetensors(ValueError):
    """A file is not a complete safetensors file."""


@dataclass(frozen=True)
class StoredTensor:
    """Where the bytes of a tensor lie: `size` bytes of `file` from `start` on, the file's header counted."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def stored_tensors(file: Path) -> dict[str, StoredTensor]:
    """The tensors of a safetensors file by name, from its header alone. Raises BadSafetensors for any other file."""
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8).ljust(8, b"\xff"))[0]
        if length > _MAX_HEADER_BYTES:
            raise BadSafetensors(f"{file} is not a safetensors file: download or export it again")
        text = stream.read(length)
    try:
        header = json.loads(text)
    except ValueError as error:
        raise BadSafetensors(f"{file} has a broken header ({error}): download or export it again") from error
    begin = 8 + length
    try:
        header.pop("__metadata__", None)
        tensors = {
            name: StoredTensor(
                file,
                entry["dtype"],
                tuple(entry["shape"]),
                begin + entry["data_offsets"][0],
                entry["data_offsets"][1] - entry["data_offsets"][0],
            )
            for name, entry in header.items()
        }
    except (AttributeError, LookupError, TypeError) as error:
        raise BadSafetensors(f"{file} has a header that describes no tensors: download or export it again") from error
    end = max((tensor.start + tensor.size for tensor in tensors.values()), default=begin)
    if file.stat().st_size < end:
        raise BadSafetensors(f"{file} ends before its last tensor does: download or export it again")
    return tensors


def copy_tensors(target: Path, tensors: Mapping[str, StoredTensor]) -> None:
    """Write a safetensors file with these tensors, in this order, read from wherever they lie."""
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
                raise BadSafetensors(f"{tensor.file} was cut short while it was read: run the command again")
            written.write(block)
            left -= len(block)
