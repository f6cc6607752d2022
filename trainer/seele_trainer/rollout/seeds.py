"""Seeds that stay apart: engines count on from the seed they are given, so neighbours would share random numbers."""

from __future__ import annotations

_MASK = 2**64 - 1


def spread(seed: int, index: int = 0) -> int:
    """A seed of 62 bits for the `index`-th part of what `seed` stands for; far from those of all other pairs.

    SplitMix64's finaliser (Steele et al. 2014), applied to one and then to the other.
    """
    return _mixed(_mixed(seed) + index) >> 2


def _mixed(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
