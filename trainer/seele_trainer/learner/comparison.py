"""Compares, at the start, the learner's way of computing a model with transformers' plainest way, on the same weights.

A fast attention may silently leave out part of an architecture, as `sdpa` does with Gemma 2's caps. The policy that is
trained is then another one than the servers'.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from seele_trainer.learner.model import TokenScorer
from seele_trainer.rollout.transformers_engine import configurations
from seele_trainer.termination import RefusedInput

logger = logging.getLogger(__name__)

# Tokens of the two sequences, which are scored as padded rows of one batch. Few, so that a large model takes seconds.
LENGTHS = (48, 20)
# Sliding windows and chunks are shortened to this, so that they matter in so short a sequence.
WINDOW = 12
# Largest mean difference of log-probabilities. Both sides compute in float32, where implementations differ by 1e-5.
TOLERANCE = 1e-3
_HALVES = (torch.float16, torch.bfloat16)
_REFERENCE = "eager"
_IMPLEMENTATIONS = ("_attn_implementation", "_experts_implementation")


class DifferentComputation(RefusedInput):
    """The learner computes other log-probabilities than the model has. The message names it and both implementations."""


@torch.no_grad()
def check_computation(scorer: TokenScorer, name: str) -> None:
    """Raise DifferentComputation if training would see a different model than its weights define.

    Compared are two sequences, scored as the learner does it (a padded batch in training mode, with the chosen
    implementations) and alone, in evaluation mode, by transformers' `eager` ones. The model is loaded once: its
    implementation is switched, and half-precision weights are converted to float32 one layer at a time. A model that
    cannot be computed this way is not compared, and a warning says why. Call it before ZeRO 3 partitions the weights.
    """
    model: Any = scorer.model
    training, chosen = scorer.training, model.config._attn_implementation
    rows = _sequences(model)
    # Neither random numbers nor modes may differ afterwards.
    with torch.random.fork_rng(devices=[]), _in_float32(model), _short_windows(model):
        try:
            learnt = _as_learner(scorer, rows)
            with _eager(model):
                plain = [_alone(model, row) for row in rows]
        except (RuntimeError, ValueError, NotImplementedError) as error:
            reason = " ".join(str(error).split())
            logger.warning("%s was not compared with its %s implementation: %s", name, _REFERENCE, reason)
            return
        finally:
            scorer.train(training)
    difference = float((learnt - torch.cat(plain)).abs().mean())
    logger.info("%s: %s attention, which differs from %s by %.1e on average", name, chosen, _REFERENCE, difference)
    if not difference <= TOLERANCE:
        raise DifferentComputation(
            f"model.name is {name!r} ({type(model).__name__}): its log-probabilities as computed in training (attention "
            f"{chosen!r}) differ by {difference:.2g} on average from those of attention {_REFERENCE!r} without padding and "
            f"noise, and rounding explains {TOLERANCE:g}. Training would not optimise the model that the servers serve: "
            f"use another model, or another version of transformers than {transformers.__version__}"
        )


def _sequences(model: Any) -> list[Tensor]:
    """Two sequences of ordinary tokens, shape (tokens,)."""
    special = {
        value
        for config in configurations(model.config)
        for name, value in vars(config).items()
        if name.endswith(("token_id", "token_index")) and isinstance(value, int)
    }
    vocabulary = model.get_input_embeddings().weight.shape[0]
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or max(LENGTHS)
    random = torch.Generator().manual_seed(0)
    ordinary = [token for token in torch.randperm(vocabulary, generator=random).tolist() if token not in special]
    return [torch.tensor((ordinary * max(LENGTHS))[: min(length, longest)]) for length in LENGTHS]


def _as_learner(scorer: TokenScorer, rows: list[Tensor]) -> Tensor:
    """Log-probabilities of all tokens but the first of each row, shape (tokens,), in training mode."""
    tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    width = tokens.shape[1]
    positions = [row * width + torch.arange(1, len(sequence)) for row, sequence in enumerate(rows)]
    scorer.train()
    found: Tensor = scorer(tokens, torch.cat(positions), None)
    return found


def _alone(model: Any, tokens: Tensor) -> Tensor:
    model.eval()
    logprobs = model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float().log_softmax(-1)
    found: Tensor = logprobs.gather(1, tokens[1:, None])[:, 0]
    return found


@contextmanager
def _eager(model: Any) -> Iterator[None]:
    """Compute attention and experts in transformers' plainest way."""
    before = [
        (config, field, getattr(config, field, None))
        for config in configurations(model.config)
        for field in _IMPLEMENTATIONS
    ]
    try:
        model.set_attn_implementation(_REFERENCE)
        if model.config._attn_implementation != _REFERENCE:
            raise NotImplementedError(f"{type(model).__name__} does not allow another attention implementation")
        model.set_experts_implementation(_REFERENCE)
        yield
    finally:
        for config, field, value in before:
            setattr(config, field, value)


@contextmanager
def _short_windows(model: Any) -> Iterator[None]:
    before = [
        (config, field, value)
        for config in configurations(model.config)
        for field in ("sliding_window", "attention_chunk_size")
        if isinstance(value := getattr(config, field, None), int) and value > WINDOW
    ]
    try:
        for config, field, _ in before:
            setattr(config, field, WINDOW)
        yield
    finally:
        for config, field, value in before:
            setattr(config, field, value)


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """Compute in float32 while weights stay as they are: a layer's are converted for the time in which it runs."""
    kept: dict[nn.Parameter, Tensor] = {}

    def restore(weights: Iterable[nn.Parameter]) -> None:
        for weight in weights:
            if weight in kept:
                weight.data = kept.pop(weight)

    def widened(part: nn.Module, weights: list[nn.Parameter]) -> Iterator[Any]:
        def widen(*_: Any) -> None:
            for weight in weights:
                kept[weight], weight.data = weight.data, weight.data.float()

        yield part.register_forward_pre_hook(widen)
        yield part.register_forward_hook(lambda *_: restore(weights), always_call=True)

    layers = list(_layers(model))
    inside = {weight for layer in layers for weight in layer.parameters()}
    outside = [weight for weight in model.parameters() if weight not in inside]
    handles = [
        handle
        for part, weights in [(model, outside), *((layer, list(layer.parameters())) for layer in layers)]
        for handle in widened(part, [weight for weight in weights if weight.dtype in _HALVES])
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        restore(list(kept))


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """The entries of a model's lists of modules; of lists inside each other, the outer ones."""
    for child in model.children():
        yield from child if isinstance(child, nn.ModuleList) else _layers(child)
