"""The sampler goes through the data without gaps or repeats, from any position."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_trainer.data.problem import BadDataError
from seele_trainer.data.sampler import ProblemSampler


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, 40))
    return size, draw(st.integers(1, size))


def draw_batches(sampler: ProblemSampler, count: int) -> list[list[int]]:
    return [sampler.next_batch() for _ in range(count)]


@given(sizes(), st.integers(0, 2**32 - 1))
def test_every_problem_comes_exactly_once_a_pass_and_never_twice_in_a_batch(sized: tuple[int, int], seed: int) -> None:
    size, batch = sized
    batches = draw_batches(ProblemSampler(size, batch, seed), 5 * size // batch + 1)
    assert all(len(set(chosen)) == batch for chosen in batches)
    drawn = [index for chosen in batches for index in chosen]
    for start in range(0, len(drawn) - size + 1, size):
        assert sorted(drawn[start : start + size]) == list(range(size))


@given(sizes(), st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 20))
def test_a_sampler_restored_at_any_position_continues_as_if_uninterrupted(
    sized: tuple[int, int], seed: int, before: int, after: int
) -> None:
    uninterrupted = ProblemSampler(*sized, seed)
    draw_batches(uninterrupted, before)
    state = json.loads(json.dumps(uninterrupted.state_dict()))
    restored = ProblemSampler(*sized, seed)
    restored.load_state_dict(state)
    assert restored.passes == uninterrupted.passes
    assert draw_batches(restored, after) == draw_batches(uninterrupted, after)


def test_a_sampler_can_go_back_to_an_earlier_state() -> None:
    sampler = ProblemSampler(10, 4, seed=3)
    state = sampler.state_dict()
    first = draw_batches(sampler, 12)
    sampler.load_state_dict(state)
    assert draw_batches(sampler, 12) == first


def test_passes_and_seeds_have_different_orders() -> None:
    one, other = ProblemSampler(100, 100, seed=0), ProblemSampler(100, 100, seed=1)
    first, second = draw_batches(one, 2)
    assert first != second
    assert first != other.next_batch()


def test_passes_counts_with_fractions() -> None:
    sampler = ProblemSampler(8, 2, seed=0)
    draw_batches(sampler, 5)
    assert sampler.passes == 1.25


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(BadDataError, match=r"needs 5 different problems, but there are 4"):
        ProblemSampler(4, 5, seed=0)


@pytest.mark.parametrize(("key", "other"), [("size", (9, 4, 1)), ("batch", (10, 5, 1)), ("seed", (10, 4, 2))])
def test_the_state_of_another_order_is_refused(key: str, other: tuple[int, int, int]) -> None:
    state = ProblemSampler(10, 4, seed=1).state_dict()
    with pytest.raises(BadDataError, match=key):
        ProblemSampler(*other).load_state_dict(state)
