"""The canary: a server's log-probabilities prove which weights it serves."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.rollout.canary import canary_sequences, default_tolerance, difference, prove
from seele_trainer.rollout.protocol import Canary, WeightSyncError

CANARY = Canary(((1, 2, 3), (4, 5)), ((-1.0, -2.0), (-3.0,)), tolerance=0.01)


def test_the_difference_is_the_mean_over_tokens_not_over_sequences() -> None:
    assert difference(CANARY, [[-1.0, -2.0], [-3.3]]) == pytest.approx(0.1)


@pytest.mark.parametrize("measured", [[], [[-1.0, -2.0]], [[-1.0], [-3.0]], [[-1.0, math.nan], [-3.0]]])
def test_missing_and_undefined_values_are_infinitely_wrong(measured: list[list[float]]) -> None:
    assert difference(CANARY, measured) == math.inf
    with pytest.raises(WeightSyncError, match="server A was given the weights of version 3"):
        prove(CANARY, measured, "server A", 3)


def test_a_difference_within_the_tolerance_passes() -> None:
    assert prove(CANARY, [[-1.0, -2.0], [-3.02]], "server A", 3) == pytest.approx(0.02 / 3)


def test_half_precision_is_allowed_more_than_single() -> None:
    assert default_tolerance("float32") == 0.01
    assert default_tolerance("bfloat16") == default_tolerance("float16") == 0.15


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=9), max_size=20),
    st.integers(1, 6),
    st.integers(2, 6),
)
def test_canary_sequences_are_distinct_scorable_and_within_their_limits(lists, count: int, longest: int) -> None:
    if not any(len(tokens) >= 2 for tokens in lists):
        with pytest.raises(ValueError, match="no sequence"):
            canary_sequences(lists, count, longest)
        return
    chosen = canary_sequences(lists, count, longest)
    assert 1 <= len(chosen) <= count
    assert len(set(chosen)) == len(chosen)
    assert all(2 <= len(tokens) <= longest for tokens in chosen)
    assert all(any(tuple(tokens[:longest]) == one for tokens in lists) for one in chosen)
