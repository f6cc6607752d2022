"""The engine that samples inside the trainer, against the model's own predictions."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.grading import StopStrings
from seele_trainer.rollout.protocol import Canary, RolloutEngine, Sampling, WeightSyncError
from seele_trainer.rollout.transformers_engine import TransformersEngine
from tests.support.small_models import EOS, logprobs_of, save_llama

PREFIX = (2, 5, 6)
SAMPLING = Sampling(n=6, max_tokens=20, temperature=0.8, seed=3)


@pytest.fixture
def model(tmp_path: Path) -> LlamaForCausalLM:
    return save_llama(tmp_path / "model", seed=0)


@pytest.fixture
async def engine(tmp_path: Path, model: LlamaForCausalLM) -> AsyncIterator[RolloutEngine]:
    engine = TransformersEngine(tmp_path / "model", RolloutOptions(engine="transformers"))
    await engine.start()
    yield engine
    await engine.close()


async def test_logprobs_are_those_of_the_distribution_sampled_from(engine, model) -> None:
    for completion in await engine.generate(PREFIX, SAMPLING):
        ids = torch.tensor([[*PREFIX, *completion.tokens]])
        with torch.inference_mode():
            table = (model(ids).logits[0, len(PREFIX) - 1 : -1] / SAMPLING.temperature).log_softmax(-1)
        expected = table.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0].tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-5)


async def test_a_completion_ends_at_its_first_end_of_sequence_or_at_the_limit(engine) -> None:
    completions = await engine.generate(PREFIX, Sampling(64, 20, 1.0, seed=0))
    assert {one.finish_reason for one in completions} == {"stop", "length"}
    for one in completions:
        assert EOS not in one.tokens[:-1]
        assert (one.tokens[-1] == EOS) == (one.finish_reason == "stop")
        assert len(one.tokens) == 20 or one.finish_reason == "stop"


PIECES = ("a", "b", "\n", "ab", "b\n", "\nb", "c")


async def test_a_stop_string_ends_a_completion_and_changes_no_token_before(engine, tmp_path) -> None:
    stop = StopStrings(("b\nb", "ca"), lambda tokens: "".join(PIECES[token % len(PIECES)] for token in tokens))
    stopping = TransformersEngine(tmp_path / "model", RolloutOptions(engine="transformers"), stop=stop)
    await stopping.start()
    # The text of the prefix has a stop string, too.
    prefix = (2, 6, 7)
    assert stop.end(prefix)
    ended = 0
    for seed in range(30):
        sampling = Sampling(1, 20, 1.0, seed)
        (whole,), (one,) = await engine.generate(prefix, sampling), await stopping.generate(prefix, sampling)
        assert one == stop.cut(whole)
        ended += one != whole
    assert 5 < ended < 30
    prefixes, greedy = [(2, one) for one in range(3, 40)], Sampling(1, 20, 0.0, 0)
    wholes = await engine.generate_batch(prefixes, greedy)
    assert [one.tokens for (one,) in await stopping.generate_batch(prefixes, greedy)] == [
        stop.cut(whole).tokens for (whole,) in wholes
    ]
    await stopping.close()


async def test_a_result_does_not_depend_on_other_requests(engine) -> None:
    alone = await engine.generate(PREFIX, SAMPLING)
    among = await asyncio.gather(
        *(engine.generate((2, 7, one), Sampling(3, 9, 1.0, one)) for one in range(8)), engine.generate(PREFIX, SAMPLING)
    )
    assert among[-1] == alone
    assert await engine.generate(PREFIX, Sampling(6, 20, 0.8, seed=4)) != alone


async def test_tokens_are_as_frequent_as_the_model_says(engine, model) -> None:
    drawn = [one.tokens[0] for one in await engine.generate(PREFIX, Sampling(4000, 1, 1.0, seed=0))]
    with torch.inference_mode():
        expected = model(torch.tensor([PREFIX])).logits[0, -1].softmax(-1).numpy()
    found = np.bincount(drawn, minlength=len(expected)) / len(drawn)
    assert np.abs(found - expected).sum() / 2 < 0.06


async def test_greedy_completions_of_many_prefixes_are_those_of_each_alone(engine, model) -> None:
    prefixes = [(2, *range(3, 3 + length)) for length in (1, 4, 9, 2)]
    together = await engine.generate_batch(prefixes, Sampling(2, 15, 0.0, seed=0))
    assert together == await engine.generate_batch(prefixes, Sampling(2, 15, 0.0, seed=0))
    for prefix, group in zip(prefixes, together, strict=True):
        alone = model.generate(torch.tensor([prefix]), max_new_tokens=15, do_sample=False, pad_token_id=0)
        assert group[0].tokens == tuple(alone[0, len(prefix) :].tolist())
        assert group[1] == group[0]


async def test_sampled_batches_are_reproducible_and_each_prefix_has_its_own_random_numbers(engine) -> None:
    batch = await engine.generate_batch([PREFIX, PREFIX], SAMPLING)
    assert batch[0] != batch[1]
    assert batch == await engine.generate_batch([PREFIX, PREFIX], SAMPLING)


async def test_new_weights_are_served_with_their_version(engine, tmp_path) -> None:
    other = save_llama(tmp_path / "other", seed=1)
    canary = Canary(((2, 3, 4, 5),), (logprobs_of(other, (2, 3, 4, 5)),), 1e-2)
    sync = await engine.update_weights(tmp_path / "other", 3, canary)
    assert sync.canary_difference < 1e-5
    completion = (await engine.generate(PREFIX, Sampling(1, 8, 1.0, seed=0)))[0]
    assert completion.policy_version == 3
    expected = logprobs_of(other, (*PREFIX, *completion.tokens))[len(PREFIX) - 1 :]
    assert completion.logprobs == pytest.approx(expected, abs=1e-5)


async def test_weights_that_are_not_the_trainers_are_detected(engine, model, tmp_path) -> None:
    save_llama(tmp_path / "other", seed=1)
    canary = Canary(((2, 3, 4, 5),), (logprobs_of(model, (2, 3, 4, 5)),), 1e-2)
    with pytest.raises(WeightSyncError, match="version 3"):
        await engine.update_weights(tmp_path / "other", 3, canary)


async def test_the_event_loop_stays_free_while_it_samples(engine) -> None:
    sampling = asyncio.create_task(engine.generate(PREFIX, Sampling(64, 60, 1.0, seed=0)))
    turns = 0
    while not sampling.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
