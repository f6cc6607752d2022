"""The canary: a server's log-probabilities prove which weights it serves."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.rollout.canary import (
    Followed,
    Served,
    canary_sequences,
    default_tolerance,
    difference,
    follows,
    prove,
)
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
    usable = {tuple(tokens[:longest]) for tokens in lists if len(tokens) >= 2}
    assert len(chosen) == len(set(chosen)) == min(count, len(usable))
    assert set(chosen) <= usable


@dataclass(frozen=True)
class Noise:
    """Standard deviations in nats per token.

    `rounding` is drawn again for each version, by trainer and engine alike; `lasting` is the difference between their
    kernels; `scoring` is drawn again whenever the engine scores.
    """

    rounding: float = 0.0
    lasting: float = 0.0
    scoring: float = 0.0


def verdict(seed: int, change: float, noise: Noise, *, stale: bool, tokens: int = 400) -> Followed:
    """The verdict on an engine that was given a version whose log-probabilities differ by `change`, and ignored it or not."""
    drawn = np.random.default_rng(seed)

    def normal(deviation: float) -> np.ndarray:
        return drawn.normal(0.0, deviation, tokens)

    truth, step, lasting = -drawn.exponential(2.0, tokens), normal(change), normal(noise.lasting)
    old, new = truth + normal(noise.rounding), truth + step + normal(noise.rounding)
    before, loaded = truth + lasting + normal(noise.rounding), truth + step + lasting + normal(noise.rounding)
    served = before if stale else loaded
    return follows(Served([old], [before + normal(noise.scoring)]), Served([new], [served + normal(noise.scoring)]))


NOISES = st.builds(
    Noise, *(st.sampled_from([0.0, 1e-6, 1e-4, 1e-3, 1e-2, 0.05]) for _ in ("rounding", "lasting", "scoring"))
)
CHANGES = st.sampled_from([0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1])
SEEDS = st.integers(0, 2**32)


@given(SEEDS, CHANGES, NOISES, st.integers(1, 400))
def test_an_engine_that_loads_is_never_taken_for_one_that_does_not(seed, change, noise, tokens) -> None:
    assert verdict(seed, change, noise, stale=False, tokens=tokens) is not Followed.OLD


@given(SEEDS, CHANGES, NOISES, st.integers(1, 400))
def test_an_engine_that_does_not_load_is_never_proven(seed, change, noise, tokens) -> None:
    assert verdict(seed, change, noise, stale=True, tokens=tokens) is not Followed.NEW


@given(SEEDS, st.sampled_from([1e-5, 1e-4, 1e-3]), st.sampled_from([0.0, 0.1, 0.3]))
def test_a_change_above_the_noise_shows_which_version_is_served(seed, change, share) -> None:
    for noise in (Noise(rounding=share * change), Noise(scoring=share * change)):
        assert verdict(seed, change, noise, stale=False) is Followed.NEW
        assert verdict(seed, change, noise, stale=True) is Followed.OLD


@given(SEEDS, st.sampled_from([0.0, 1e-4, 1e-2]))
def test_values_that_stay_although_the_trainers_change_are_old(seed, change) -> None:
    """However little a step changes: half precision rounds the values of every other version differently."""
    assert verdict(seed, change, Noise(rounding=0.02, lasting=0.02), stale=True) is Followed.OLD
    assert verdict(seed, change, Noise(rounding=0.02, lasting=0.02), stale=False) is not Followed.OLD


@given(SEEDS)
def test_a_change_below_what_an_engine_rounds_to_is_unproven(seed) -> None:
    drawn = np.random.default_rng(seed)
    old = -drawn.exponential(2.0, 100)
    new = old + drawn.normal(0.0, 1e-5, 100)
    rounded = Served([old], [old.round(3)]), Served([new], [new.round(3)])
    assert follows(*rounded) is not Followed.OLD


def test_versions_without_a_difference_are_the_same() -> None:
    served = Served([[-1.0, -2.0], [-3.0]], [[-1.1, -2.0], [-3.1]])
    assert follows(served, served) is Followed.SAME
