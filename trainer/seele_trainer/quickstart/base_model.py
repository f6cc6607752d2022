"""Trains the quickstart's base model, or a larger one of its kind: a Llama from scratch, on habit text."""

import logging
import math
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from seele_trainer.quickstart import chains

logger = logging.getLogger(__name__)

PAD, END = "<pad>", "<end>"


@dataclass(frozen=True)
class Size:
    """Shape of the model. Feed-forward layers are twice as wide as `hidden`."""

    hidden: int = 128
    layers: int = 2
    heads: int = 4


def build_tokenizer(longest: int = chains.LONGEST) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per digit, labelled result `a=`, label ` a`, operation `+5`, `#### ` and line break.

    It has the labels of chains of up to `longest` operations.
    """
    labels = chains.LABELS[:longest]
    low, high = chains.OPERANDS
    operations = [f"{sign}{size}" for sign in "+-" for size in range(low, high + 1)]
    pieces = [
        *(str(digit) for digit in range(10)),
        *(f"{label}=" for label in labels),
        *(f" {label}" for label in labels),
        *operations,
        "#### ",
        "\n",
    ]
    vocabulary = {piece: index for index, piece in enumerate([PAD, END, *pieces])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=PAD))
    pattern = Regex(r"[a-z]=| [a-z]|[+-]\d|#### |\d|\n")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        model_max_length=chains.context_length(longest),
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int, size: Size | None = None) -> LlamaForCausalLM:
    """The untrained model, with untied embeddings."""
    size = size or Size()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=size.hidden,
        intermediate_size=2 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads,
        max_position_embeddings=tokenizer.model_max_length,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config)


def train_base_model(
    out: Path,
    exclude: frozenset[str],
    *,
    updates: int,
    batch: int,
    learning_rate: float,
    seed: int,
    right_step: float,
    longest: int = chains.LONGEST,
    size: Size | None = None,
    device: str = "cpu",
) -> float:
    """Train on freshly drawn habit text and write a Hugging Face folder to `out`.

    Returns the mean loss of the last 100 updates above `chains.habit_entropy()`, in nats per step of a solution: 0 means that
    the model has learned rule and habit perfectly. On a GPU it computes in bfloat16; weights are float32 everywhere.
    """
    rng = np.random.default_rng(seed)
    tokenizer = build_tokenizer(longest)
    model: Any = build_model(tokenizer, seed, size)
    model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.98))
    warmup = max(1, updates // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda update: (
            min(1.0, (update + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, update / updates))) + 0.01
        ),
    )
    excess: deque[float] = deque(maxlen=100)
    began = time.monotonic()
    for update in range(updates):
        drawn = draw_batch(rng, tokenizer, batch, exclude, right_step, longest)
        tokens, weights, steps = drawn[0].to(device), drawn[1].to(device), drawn[2]
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            logits = model(input_ids=tokens[:, :-1]).logits
        losses = torch.nn.functional.cross_entropy(
            logits.float().flatten(0, 1), tokens[:, 1:].flatten(), reduction="none"
        )
        total = (losses * weights[:, 1:].flatten()).sum()
        optimizer.zero_grad()
        (total / weights.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        excess.append(total.item() / steps - chains.habit_entropy(right_step))
        if (update + 1) % 100 == 0:
            rate = (update + 1) / (time.monotonic() - began)
            left = (updates - update - 1) / rate
            logger.info(
                "base model: update %d/%d, excess loss %.4f nats per step, %.0f s left",
                update + 1,
                updates,
                fmean(excess),
                left,
            )
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return fmean(excess)


def draw_batch(
    rng: np.random.Generator,
    tokenizer: PreTrainedTokenizerFast,
    batch: int,
    exclude: frozenset[str],
    right_step: float,
    longest: int = chains.LONGEST,
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Draw habit texts: token ids and loss weights (1 on solutions) of shape (batch, tokens), and the number of steps."""
    texts = [chains.habit_text(rng, exclude, right_step, longest) for _ in range(batch)]
    prompts = tokenizer([question + "\n" for question, _ in texts])["input_ids"]
    solutions = tokenizer([solution + END for _, solution in texts])["input_ids"]
    width = max(len(prompt) + len(solution) for prompt, solution in zip(prompts, solutions, strict=True))
    tokens = np.full((batch, width), tokenizer.pad_token_id)
    weights = np.zeros((batch, width), dtype=np.float32)
    for row, (prompt, solution) in enumerate(zip(prompts, solutions, strict=True)):
        tokens[row, : len(prompt) + len(solution)] = [*prompt, *solution]
        weights[row, len(prompt) : len(prompt) + len(solution)] = 1.0
    steps = sum(solution.count("=") for _, solution in texts)
    return torch.from_numpy(tokens), torch.from_numpy(weights), steps
