"""Micro-batches: nothing is lost, budgets are kept, ranks are equal, and merging changes no gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seele_trainer.config import Training
from seele_trainer.learner.deepspeed import learning_rate
from seele_trainer.learner.loss import Denominators
from seele_trainer.learner.packing import (
    MicroBatch,
    decode,
    encode,
    merge_identical,
    pack,
    to_device,
)
from seele_trainer.learner.sample import EVERY_TOKEN, FIELDS, Sample


def sample(length: int, seed: int = 0, prompt: int = 1, multiplicity: float = 1.0) -> Sample:
    """A sample of `length` tokens: `prompt` tokens of prompt, then half hint, half generated.

    The hints of every second seed are off-policy instead of supervised, and every third has a mask for uncertain tokens.
    """
    random = np.random.default_rng([length, seed])
    start = prompt + (length - prompt) // 2
    generated = np.arange(length) >= start
    hint = (np.arange(length) >= prompt) & ~generated
    off_policy = hint & (seed % 2 == 1)
    return Sample(
        tokens=random.integers(1, 50, length),
        policy_mask=generated,
        advantage=np.where(generated | off_policy, 0.5, 0.0).astype(np.float32),
        supervised=(hint & ~off_policy).astype(np.float32),
        behaviour_logprobs=np.where(generated, -random.random(length), 0.0).astype(np.float32),
        off_policy=off_policy,
        clipped=seed % 2 == 0,
        shaping=0.1 * (seed % 2),
        most_uncertain=EVERY_TOKEN if seed % 3 else 2,
        multiplicity=multiplicity,
    )


lengths = st.lists(st.integers(2, 60), min_size=0, max_size=60)
ranks = st.integers(1, 5)
budgets = st.integers(1, 400)


def with_lengths(values: list[int]) -> list[Sample]:
    return [sample(length, seed=number) for number, length in enumerate(values)]


@given(lengths=lengths, ranks=ranks, budget=budgets)
@settings(deadline=None)
def test_every_sample_is_in_exactly_one_micro_batch_as_it_was(lengths: list[int], ranks: int, budget: int) -> None:
    samples = with_lengths(lengths)
    found: dict[int, tuple[MicroBatch, int]] = {}
    for batch in (batch for rank in pack(samples, ranks, budget) for batch in rank):
        for row, source in enumerate(batch.source.tolist()):
            if source >= 0:
                assert source not in found
                found[source] = (batch, row)
    assert sorted(found) == list(range(len(samples)))
    for source, (batch, row) in found.items():
        original = samples[source]
        for field in FIELDS:
            row_values, values = getattr(batch, field.name)[row], np.asarray(getattr(original, field.name))
            assert row_values.dtype == field.metadata["dtype"]
            if field.metadata["per_token"]:
                assert not row_values[len(values) :].any()
                row_values = row_values[: len(values)]
            np.testing.assert_array_equal(row_values, values.astype(field.metadata["dtype"]))


@given(lengths=lengths, ranks=ranks, budget=budgets)
@settings(deadline=None)
def test_ranks_get_as_many_micro_batches_and_none_is_over_budget(lengths: list[int], ranks: int, budget: int) -> None:
    dealt = pack(with_lengths(lengths), ranks, budget)
    assert len(dealt) == ranks
    assert len({len(batches) for batches in dealt}) == 1
    for batch in (batch for batches in dealt for batch in batches):
        assert batch.tokens.size <= budget or len(batch.tokens) == 1


@given(lengths=lengths, ranks=ranks, budget=budgets)
@settings(deadline=None)
def test_packing_is_deterministic_and_its_micro_batches_survive_the_wire(
    lengths: list[int], ranks: int, budget: int
) -> None:
    samples = with_lengths(lengths)
    for first, second in zip(pack(samples, ranks, budget), pack(samples, ranks, budget), strict=True):
        assert encode(first) == encode(second)
        for sent, received in zip(first, decode(encode(first)), strict=True):
            for name, array in vars(sent).items():
                assert getattr(received, name).dtype == array.dtype
                np.testing.assert_array_equal(getattr(received, name), array)


def test_a_micro_batch_without_samples_weighs_nothing() -> None:
    dealt = pack([sample(8)], ranks=3, token_budget=100)
    empty = [batch for batches in dealt for batch in batches if (batch.source < 0).all()]
    assert len(empty) == 2
    for batch in empty:
        assert not batch.trained.any()
        assert not batch.multiplicity.any()


def test_one_large_micro_batch_is_shared_out_rather_than_left_to_one_rank() -> None:
    dealt = pack([sample(10, seed=number) for number in range(64)], ranks=4, token_budget=10_000)
    assert [sum(batch.tokens.size for batch in batches) for batches in dealt] == [160] * 4


def test_micro_batches_are_even_rather_than_full_ones_and_a_small_rest() -> None:
    dealt = pack([sample(10, seed=number) for number in range(22)], ranks=1, token_budget=100)
    assert sorted(len(batch.tokens) for batch in dealt[0]) == [6, 8, 8]


def test_similar_lengths_share_a_micro_batch_so_that_little_is_padding() -> None:
    random = np.random.default_rng(0)
    samples = with_lengths(random.integers(10, 100, 400).tolist())
    dealt = pack(samples, ranks=2, token_budget=2048)
    loads = [sum(batch.tokens.size for batch in batches) for batches in dealt]
    assert sum(loads) < sum(len(one.tokens) for one in samples) / 0.93
    assert max(loads) / min(loads) < 1.05


def test_no_samples_make_no_micro_batches() -> None:
    assert pack([], ranks=2, token_budget=100) == [[], []]


@pytest.mark.parametrize("seed", [0, 1], ids=["supervised", "off-policy"])
def test_a_sample_that_trains_its_first_token_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match="sample 1 trains its first token"):
        pack([sample(5), sample(5, seed=seed, prompt=0)], ranks=1, token_budget=100)


def test_identical_samples_are_merged_and_others_are_not() -> None:
    one = sample(9)
    better = replace(one, advantage=one.advantage * 2)
    shorter_hint = replace(one, policy_mask=np.arange(9) >= 3)
    reference = replace(one, off_policy=one.supervised > 0)
    others = [better, shorter_hint, reference, replace(reference, shaping=0.1), replace(one, most_uncertain=1)]
    others.append(replace(one, clipped=False))
    merged = merge_identical([one, *others, one, replace(one, multiplicity=3.0)])
    assert [entry.multiplicity for entry in merged] == [5.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert all(found is other for found, other in zip(merged[1:], others, strict=True))


def test_merging_averages_what_rounding_made_different_and_keeps_apart_what_is_really_different() -> None:
    one = sample(9)
    rounded = replace(one, behaviour_logprobs=one.behaviour_logprobs + np.float32(3e-4), multiplicity=2.0)
    other = replace(one, behaviour_logprobs=one.behaviour_logprobs - np.float32(0.1))
    merged = merge_identical([one, rounded, other])
    assert [entry.multiplicity for entry in merged] == [3.0, 1.0]
    np.testing.assert_allclose(merged[0].behaviour_logprobs, one.behaviour_logprobs + 2e-4, atol=1e-6)


@given(choices=st.lists(st.integers(2, 8), max_size=40))
@settings(deadline=None)
def test_merging_keeps_the_denominators(choices: list[int]) -> None:
    samples = [sample(length, seed=length % 2) for length in choices]
    merged = merge_identical(samples)
    assert len(merged) == len(set(choices))
    generated, off_policy = (
        sum(int(getattr(one, name).sum()) for one in samples) for name in ("policy_mask", "off_policy")
    )
    supervised = sum(int((one.supervised != 0).sum()) for one in samples)
    assert Denominators.of(merged) == Denominators.of(samples) == Denominators(generated, off_policy, supervised)


def test_only_tokens_of_some_weight_go_to_the_device_with_the_fields_of_their_samples() -> None:
    samples = [sample(5), sample(8, seed=1, multiplicity=2.0), sample(3, seed=2)]
    (batch,) = pack(samples, ranks=1, token_budget=100)[0]
    found = to_device(batch, torch.device("cpu"), temperature=0.5)
    assert found.tokens.flatten()[found.positions].tolist() == found.scored.tokens.tolist()
    wanted = [index for index in batch.source for _ in samples[index].tokens[1:]]
    assert found.rows.tolist() == [batch.source.tolist().index(index) for index in wanted]
    for field in FIELDS:
        values = (
            np.broadcast_to(getattr(samples[index], field.name), len(samples[index].tokens)) for index in batch.source
        )
        expected = np.concatenate([value[1:] for value in values]).astype(field.metadata["dtype"])
        np.testing.assert_array_equal(getattr(found.scored, field.name).numpy(), expected)
    tempered = found.scored.policy_mask | found.scored.off_policy
    assert found.temperature is not None
    assert found.temperature.tolist() == torch.where(tempered, 0.5, 1.0).tolist()
    assert found.ranked


def test_a_micro_batch_that_trains_nothing_scores_one_token_of_no_weight() -> None:
    empty = pack([sample(8)], ranks=2, token_budget=100)[1][0]
    # A rollout whose completion is masked, after a prompt of one token.
    masked = pack([Sample(tokens=np.array([5]))], ranks=1, token_budget=100)[0][0]
    for batch, multiplicity in ((empty, 0.0), (masked, 1.0)):
        found = to_device(batch, torch.device("cpu"), temperature=1.0)
        assert (len(found.positions), found.temperature, found.ranked) == (1, None, False)
        assert found.scored.multiplicity.tolist() == [multiplicity]
        assert not found.scored.policy_mask.any()
        assert not found.scored.supervised.any()


def test_the_learning_rate_rises_then_follows_its_schedule_to_the_final_ratio() -> None:
    linear = Training(
        learning_rate=1.0, warmup_updates=4, learning_rate_schedule="linear", final_learning_rate_ratio=0.2
    )
    rates = [learning_rate(linear, update, 9) for update in range(10)]
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


def test_the_cosine_schedule_is_halfway_down_in_the_middle_and_a_constant_one_stays() -> None:
    cosine = Training(learning_rate=2.0, learning_rate_schedule="cosine", final_learning_rate_ratio=0.0)
    assert [learning_rate(cosine, update, 11) for update in (0, 5, 10)] == pytest.approx([2.0, 1.0, 0.0])
    constant = Training(learning_rate=2.0)
    assert {learning_rate(constant, update, 11) for update in range(11)} == {2.0}
