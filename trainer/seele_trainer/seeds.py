"""Seeds that depend on nothing but what they are for, so that a step that is made again draws the same."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, step: int, name: str, number: int) -> int:
    """A seed in [0, 2**31) that depends on nothing but the arguments, so a resumed step samples the same."""
    digest = hashlib.blake2b(f"{seed}/{step}/{name}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1
