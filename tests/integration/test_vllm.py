"""The pool and the weight sync against real vLLM servers on the CPU."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from seele_trainer.config import Dataset, Model, RolloutOptions, TrainerConfig
from seele_trainer.data.tokenizer import TextTokenizer
from seele_trainer.learner.model import head_scaled
from seele_trainer.rollout.grading import StopStrings
from seele_trainer.rollout.pool import VllmPool
from seele_trainer.rollout.protocol import Canary, Completion, Decoy, Sampling, WeightSyncError
from seele_trainer.rollout.transformers_engine import TransformersEngine
from seele_trainer.weights.export import write_model_folder
from seele_trainer.weights.prepare import prepare_model
from seele_trainer.weights.stored_tensors import HEAD
from tests.support.small_models import EOS, VOCABULARY, logprobs_of, save_llama
from tests.support.vllm_process import VllmProcess

pytestmark = pytest.mark.timeout(400)

CANARY_SEQUENCES = ((2, 5, 9, 33, 7, 60, 12, 12, 40), (2, 17, 3, 44))
PREFIX = (2, 5, 6, 30)
SAMPLING = Sampling(n=8, max_tokens=24, temperature=1.0, seed=11)
CONFIG = RolloutOptions(server_start_timeout_seconds=180, server_retry_timeout_seconds=180)


def save_letters(folder: Path) -> TextTokenizer:
    """Save a tokenizer whose tokens are short strings of a few letters, line breaks and halves of an é."""
    short = ["".join(letters) for length in (1, 2, 3) for letters in itertools.product("abĊ", repeat=length)]
    halves = ["Ã", "©", "Ãa", "Ãb", "©a", "©Ċ", *(f"c{one}" for one in short[:16])]
    words = {word: index for index, word in enumerate(["<pad>", "</s>", "<s>", *short, *halves][:VOCABULARY])}
    raw = Tokenizer(models.BPE(vocab=words, merges=[]))
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", bos_token="<s>", pad_token="<pad>")
    tokenizer.save_pretrained(folder)
    return TextTokenizer(tokenizer.backend_tokenizer)


class Servers:
    """`untied` was prepared from a tied model as in a run; `tied` serves the same model unchanged, without a tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.initial = save_llama(folder / "model", seed=0, tied=True)
        self.text = save_letters(folder / "model")
        config = TrainerConfig(
            name="test", model=Model(name=str(folder / "model")), dataset=Dataset(path="problems.jsonl")
        )
        prepare_model(config, folder / "initial")
        self.untied = VllmProcess(folder / "initial", folder / "untied.log", tokenizer=True)
        self.tied = VllmProcess(folder / "model", folder / "tied.log")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    both = Servers(tmp_path_factory.mktemp("servers"))
    try:
        # Started at the same time: most of a start is imports.
        both.untied.start()
        both.tied.start()
        both.untied.wait()
        both.tied.wait()
        yield both
    finally:
        both.untied.kill()
        both.tied.kill()


@pytest.fixture
async def pool(servers: Servers) -> AsyncIterator[VllmPool]:
    pool = VllmPool([servers.untied.url], CONFIG)
    await pool.start()
    yield pool
    await pool.close()


def canary_of(model: LlamaForCausalLM) -> Canary:
    return Canary(CANARY_SEQUENCES, tuple(logprobs_of(model, tokens) for tokens in CANARY_SEQUENCES), tolerance=1e-2)


async def push(pool: VllmPool, folder: Path, *, seed: int, tied: bool, version: int) -> LlamaForCausalLM:
    """Give the servers a new model, exported as by the learner."""
    model = save_llama(folder / f"source-{version}", seed=seed, tied=tied)
    export = folder / f"version-{version}"
    write_model_folder(export, dict(model.named_parameters()), model.config, untie=True)
    sync = await pool.update_weights(export, version, canary_of(model))
    assert sync.engines == 1
    assert sync.canary_difference < 1e-3
    print(f"weights of version {version} in {sync.seconds:.3f} s, off by {sync.canary_difference:.1e}")
    return model


def agree(model: LlamaForCausalLM, completions: list[Completion], temperature: float = 1.0) -> None:
    """Log-probabilities are the model's own, and completions end where they should."""
    for one in completions:
        ids = torch.tensor([[*PREFIX, *one.tokens]])
        with torch.inference_mode():
            table = (model(ids).logits[0, len(PREFIX) - 1 : -1] / temperature).log_softmax(-1)
        expected = table.gather(1, torch.tensor(one.tokens)[:, None])[:, 0].tolist()
        assert one.logprobs == pytest.approx(expected, abs=1e-3)
        assert EOS not in one.tokens[:-1]
        assert (one.tokens[-1] == EOS) == (one.finish_reason == "stop")


async def test_a_prepared_tied_model_is_served_as_it_is(servers: Servers) -> None:
    pool = VllmPool([servers.untied.url, servers.tied.url], CONFIG)
    await pool.start()
    try:
        agree(servers.initial, await pool.generate(PREFIX, SAMPLING))
        greedy = await pool.generate_batch([PREFIX, PREFIX[:2]], Sampling(2, 12, 0.0, seed=0))
        expected = servers.initial.generate(torch.tensor([PREFIX]), max_new_tokens=12, do_sample=False, pad_token_id=0)
        assert greedy[0][0].tokens == tuple(expected[0, len(PREFIX) :].tolist())
        assert greedy[0][1] == greedy[0][0]
        assert len(greedy) == 2
    finally:
        await pool.close()


@pytest.mark.parametrize(("tied", "version"), [(False, 1), (True, 2)])
async def test_a_reload_changes_what_is_served(servers: Servers, pool: VllmPool, tied: bool, version: int) -> None:
    model = await push(pool, servers.folder, seed=version, tied=tied, version=version)
    completions = await pool.generate(PREFIX, SAMPLING)
    agree(model, completions)
    assert {one.policy_version for one in completions} == {version}
    with pytest.raises(AssertionError):
        agree(servers.initial, completions)


async def test_the_decoy_and_steps_far_within_the_tolerance_are_followed(servers: Servers, pool: VllmPool) -> None:
    model = save_llama(servers.folder / "small-steps", seed=6, tied=True)
    with head_scaled(model, 0.5, untie=True):
        decoy = Decoy(servers.folder / "decoy", canary_of(model).logprobs)
    write_model_folder(decoy.directory, dict(model.named_parameters()), model.config, untie=True, scales={HEAD: 0.5})
    for version in (6, 7, 8):
        export = servers.folder / f"version-{version}"
        write_model_folder(export, dict(model.named_parameters()), model.config, untie=True)
        sync = await pool.update_weights(export, version, replace(canary_of(model), decoy=decoy))
        assert sync.unproven == 0
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 1e-5 * torch.randn_like(parameter)


async def test_logprobs_are_at_the_temperature_that_was_sampled_with(servers: Servers, pool: VllmPool) -> None:
    model = await push(pool, servers.folder, seed=3, tied=False, version=3)
    agree(model, await pool.generate(PREFIX, Sampling(8, 24, 0.6, seed=1)), temperature=0.6)


async def test_a_seed_gives_the_same_completions_twice_and_different_ones_within_n(pool: VllmPool) -> None:
    first = await pool.generate(PREFIX, SAMPLING)
    others = await asyncio.gather(*(pool.generate((2, one), Sampling(4, 16, 1.0, one)) for one in range(3, 40)))
    again = await pool.generate(PREFIX, SAMPLING)
    assert [one.tokens for one in first] == [one.tokens for one in again]
    assert len({one.tokens for one in first}) == 8
    assert len(others) == 37
    assert [one.tokens for one in await pool.generate(PREFIX, Sampling(8, 24, 1.0, seed=12))] != [
        one.tokens for one in first
    ]


STRINGS = ("\nab", "éa", "bba", "<s>")


async def test_both_engines_end_a_completion_at_the_same_token(servers: Servers) -> None:
    stop = StopStrings(STRINGS, partial(servers.text.text, special=True))
    # A prefix that ends in the middle of a stop string, and has another.
    prefix = next((2, 2, one) for one in range(3, VOCABULARY) if servers.text.text([one]) == "\n")
    assert stop.end(prefix)
    sampling, greedy = Sampling(64, 16, 1.0, seed=5), Sampling(1, 24, 0.0, seed=0)
    prefixes = [(2, one, other) for one in (5, 30) for other in range(3, 42)]
    plain = VllmPool([servers.untied.url], CONFIG)
    await plain.start()
    model = await push(plain, servers.folder, seed=4, tied=False, version=4)
    whole = await plain.generate(prefix, sampling)
    await plain.close()

    stopping = VllmPool([servers.untied.url], CONFIG, stop=STRINGS)
    await stopping.start()
    # The canary is scored as a whole, although it has stop strings.
    canary = canary_of(model)
    assert any(stop.end(sequence) for sequence in canary.sequences)
    await stopping.update_weights(servers.folder / "version-4", 4, canary)
    ended, theirs = await stopping.generate(prefix, sampling), await stopping.generate_batch(prefixes, greedy)
    await stopping.close()
    inside = TransformersEngine(servers.folder / "version-4", CONFIG, stop=stop)
    await inside.start()
    ours = await inside.generate_batch(prefixes, greedy)
    await inside.close()

    expected = [stop.cut(one) for one in whole]
    assert [(one.tokens, one.finish_reason) for one in ended] == [(one.tokens, one.finish_reason) for one in expected]
    texts = [servers.text.text(one.tokens, special=True) for one in ended if stop.end(one.tokens)]
    assert 10 < len(texts) < 64
    assert any(not text.endswith(STRINGS) for text in texts), "no stop string ends inside a token"
    for one in ended:
        assert one.logprobs == pytest.approx(logprobs_of(model, (*prefix, *one.tokens))[len(prefix) - 1 :], abs=1e-3)
    assert [(one.tokens, one.finish_reason) for (one,) in ours] == [
        (one.tokens, one.finish_reason) for (one,) in theirs
    ]
    assert sum(stop.end(one.tokens) for (one,) in ours) > 10


async def test_the_canary_catches_a_tied_model_that_is_reloaded_tied(servers: Servers) -> None:
    pool = VllmPool([servers.tied.url], CONFIG)
    await pool.start()
    try:
        other = save_llama(servers.folder / "other-tied", seed=9, tied=True)
        with pytest.raises(WeightSyncError, match="must be served untied"):
            await pool.update_weights(servers.folder / "other-tied", 1, canary_of(other))
    finally:
        await pool.close()


async def test_a_server_that_was_killed_gets_the_current_weights_before_it_is_used(
    servers: Servers, pool: VllmPool
) -> None:
    model = await push(pool, servers.folder, seed=5, tied=True, version=5)
    await asyncio.to_thread(servers.untied.kill)
    request = asyncio.create_task(pool.generate(PREFIX, SAMPLING))
    servers.untied.start()
    agree(model, await request)
    assert pool.counts.failed == 0
