"""Completions sampled inside the trainer by transformers, without servers, for tests and debugging."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from seele_trainer.config import RolloutOptions
from seele_trainer.rollout.canary import Followed
from seele_trainer.rollout.grading import NO_STOP, StopStrings
from seele_trainer.rollout.protocol import (
    Canary,
    Completion,
    RequestCounts,
    RolloutUnavailable,
    Sampling,
    WeightSync,
    spread,
)
from seele_trainer.rollout.weight_proof import WeightProof

Result = TypeVar("Result")

_NAME = "transformers"
_PREFIXES_AT_ONCE = 64


class TransformersEngine:
    """The RolloutEngine protocol in one process: its own sampling loop, one request at a time, in a thread.

    The result of a request depends on the weights, the prefix and the Sampling alone, bit for bit: it is never batched
    with others and has its own random numbers. `eos_ids` and `stop` end a completion; the former are by default those of
    the model's folder. `dtype` defaults to the model's own.
    """

    def __init__(
        self,
        model_folder: Path,
        config: RolloutOptions,
        eos_ids: Sequence[int] | None = None,
        stop: StopStrings = NO_STOP,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.counts = RequestCounts(by_server={_NAME: 0})
        self._folder = model_folder
        self._config = config
        self._eos_ids = eos_ids
        self._stop = stop
        self._device = torch.device(device)
        self._dtype = dtype
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rollout")
        self._model: Any = None
        self._stops = torch.empty(0, dtype=torch.long)
        self._version = 0
        self._proof = WeightProof(_NAME)

    async def start(self) -> None:
        """Load the model. Raises OSError if the folder has none."""

        def start() -> None:
            disable_progress_bar()  # type: ignore[no-untyped-call]
            self._model = self._load(self._folder)
            ids = eos_ids_of(self._folder) if self._eos_ids is None else self._eos_ids
            self._stops = torch.tensor(sorted(ids), dtype=torch.long, device=self._device)

        await self._run(start)

    def servers(self) -> tuple[()]:
        """This engine has no servers."""
        return ()

    async def update_weights(self, directory: Path, version: int, canary: Canary) -> WeightSync:
        """Load a model folder as policy `version`. Raises WeightSyncError if the canary shows other weights."""
        began = time.monotonic()

        def load(folder: Path) -> list[list[float]]:
            self._model = self._load(folder)
            return [self._score(tokens) for tokens in canary.sequences]

        proof = await self._proof.push(lambda folder: self._run(partial(load, folder)), directory, version, canary)
        self._version = version
        unproven = int(proof.followed is Followed.UNPROVEN)
        return WeightSync(version, time.monotonic() - began, proof.difference, engines=1, unproven=unproven)

    async def generate(self, prefix: Sequence[int], sampling: Sampling) -> list[Completion]:
        """Sample `sampling.n` completions of one prefix."""
        completions = await self._run(lambda: self._sample([tuple(prefix)] * sampling.n, sampling))
        self._count(1)
        return completions

    async def generate_batch(self, prefixes: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Completion]]:
        """Sample for many prefixes: greedily in batches, otherwise one after the other, each with its own seed."""
        if sampling.temperature > 0:
            return [
                await self.generate(prefix, replace(sampling, seed=spread(sampling.seed, index)))
                for index, prefix in enumerate(prefixes)
            ]
        found: list[list[Completion]] = []
        for start in range(0, len(prefixes), _PREFIXES_AT_ONCE):
            part = [tuple(prefix) for prefix in prefixes[start : start + _PREFIXES_AT_ONCE]]
            completions = await self._run(partial(self._sample, part, sampling))
            found += [[completion] * sampling.n for completion in completions]
            self._count(len(part))
        return found

    async def close(self) -> None:
        """Release the model."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._forget)
        self._thread.shutdown()

    async def _run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _count(self, requests: int) -> None:
        self.counts.ok += requests
        self.counts.by_server[_NAME] += requests

    def _forget(self) -> None:
        self._model = None

    def _load(self, folder: Path) -> Any:
        # As the learner computes it, because a policy and its servers must agree.
        attention = attention_for(AutoConfig.from_pretrained(folder))
        model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=self._dtype or "auto", attn_implementation=attention
        )
        return model.to(self._device).eval().requires_grad_(False)

    @torch.inference_mode()
    def _score(self, tokens: Sequence[int]) -> list[float]:
        ids = torch.tensor([tokens], device=self._device)
        logprobs = self._model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        found: list[float] = logprobs.gather(1, ids[0, 1:, None])[:, 0].tolist()
        return found

    @torch.inference_mode()
    def _sample(self, prefixes: Sequence[tuple[int, ...]], sampling: Sampling) -> list[Completion]:
        """One completion for each prefix, as one batch."""
        if self._model is None:
            raise RolloutUnavailable("the transformers engine has no model: call start() first")
        generator = torch.Generator(self._device).manual_seed(spread(sampling.seed))
        ids, mask = self._padded(prefixes)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        rows = list(range(len(prefixes)))
        tokens: list[list[int]] = [[] for _ in prefixes]
        logprobs: list[list[float]] = [[] for _ in prefixes]
        stopped = [False] * len(prefixes)
        cache: Any = None
        for step in range(sampling.max_tokens):
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen, chances = _choose(output.logits[:, -1].float(), sampling.temperature, generator)
            ends = torch.isin(chosen, self._stops)
            for row, token, chance, end in zip(rows, chosen.tolist(), chances.tolist(), ends.tolist(), strict=True):
                tokens[row].append(token)
                logprobs[row].append(chance)
                stopped[row] = end or self._stop.end(tokens[row])
            going = [index for index, row in enumerate(rows) if not stopped[row]]
            if not going or step + 1 == sampling.max_tokens:
                break
            if len(going) < len(rows):
                cache.batch_select_indices(torch.tensor(going, device=self._device))
                rows = [rows[index] for index in going]
            ids = chosen[going, None]
            mask = torch.cat([mask[going], mask.new_ones(len(going), 1)], dim=1)
            positions = positions[going, -1:] + 1
        return [
            Completion(tuple(tokens[row]), tuple(logprobs[row]), "stop" if stopped[row] else "length", self._version)
            for row in range(len(prefixes))
        ]

    def _padded(self, prefixes: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask, both of shape (prefixes, longest), padded on the left."""
        width = max(map(len, prefixes))
        ids = torch.zeros(len(prefixes), width, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prefix in enumerate(prefixes):
            ids[row, width - len(prefix) :] = torch.tensor(prefix, dtype=torch.long)
            mask[row, width - len(prefix) :] = 1
        return ids.to(self._device), mask.to(self._device)


def eos_ids_of(folder: Path) -> tuple[int, ...]:
    """The tokens that end a completion, from a model folder's generation settings or else its configuration."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        declared = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
        if declared is not None:
            return tuple(declared) if isinstance(declared, list) else (declared,)
    return ()


def _choose(logits: Tensor, temperature: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A token for each row of logits (rows, vocabulary), and its log-probability; the likeliest at temperature 0."""
    logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
    drawn = (
        logprobs.argmax(-1, keepdim=True)
        if temperature == 0
        else torch.multinomial(logprobs.exp(), 1, generator=generator)
    )
    return drawn[:, 0], logprobs.gather(1, drawn)[:, 0]


def attention_for(model_config: Any) -> str | None:
    """The `attn_implementation` to load a model with, from its transformers configuration.

    The learner and this engine must use the same, or their log-probabilities differ.
    `eager` if attention scores are capped (Gemma 2): `sdpa` ignores the cap without an error. Otherwise None, with which
    transformers takes `sdpa`, or `eager` for architectures that it cannot compute otherwise, such as those with sinks
    (GPT-OSS).
    """
    capped = any(
        value and "softcap" in name and ("attn" in name or "attention" in name)
        for part in configurations(model_config)
        for name, value in vars(part).items()
    )
    return "eager" if capped else None


def configurations(model_config: Any) -> Iterator[Any]:
    """A transformers configuration and those nested in it, such as the `text_config` of a model that also sees images."""
    yield model_config
    for value in vars(model_config).values():
        if hasattr(value, "to_json_string"):
            yield from configurations(value)
