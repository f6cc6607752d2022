"""Seeds that depend only on their purpose, so that a repeated step draws the same numbers."""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, step: int, name: str, number: int) -> int:
    """A seed in [0, 2**31) that depends on the arguments alone."""
    digest = hashlib.blake2b(f"{seed}/{step}/{name}/{number}".encode(), digest_size=4).digest()
    return int.from_bytes(digest) >> 1


_MASK = 2**64 - 1


def spread(seed: int, index: int = 0) -> int:
    """A seed of 62 bits for part `index` of whatever `seed` is for, far from the seeds of all other pairs.

    SplitMix64's finaliser (Steele et al. 2014), applied to the seed and then to the index.
    """
    return _mixed(_mixed(seed) + index) >> 2


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
