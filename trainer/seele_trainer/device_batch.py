"""A micro-batch as the tensors that the model and the loss take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from seele_trainer.loss import TokenWeights
from seele_trainer.packing import MicroBatch


@dataclass(frozen=True)
class DeviceBatch:
    """Padded `tokens` (rows, width); flat `positions` of the tokens to score, and their temperatures and weights.

    `temperature` is the sampling temperature for generated tokens, whose policy is the tempered one, and 1 for hints;
    None where it is 1 for all.
    """

    tokens: Tensor
    positions: Tensor
    temperature: Tensor | None
    weights: TokenWeights


def to_device(batch: MicroBatch, device: torch.device, temperature: float) -> DeviceBatch:
    """Move to the device what the loss needs of a micro-batch: only tokens of some weight are scored, at least one."""
    chosen = np.flatnonzero(batch.trained)
    if not len(chosen):
        # Ranks have to run the same passes, so a micro-batch without samples scores a token of no weight.
        chosen = np.array([1])
    generated = batch.policy_mask.reshape(-1)[chosen]
    multiplicity = np.repeat(batch.multiplicity, batch.tokens.shape[1])[chosen]
    tempered = None if temperature == 1.0 else np.where(generated, temperature, 1.0).astype(np.float32)
    return DeviceBatch(
        tokens=torch.tensor(batch.tokens, device=device),
        positions=torch.tensor(chosen, device=device),
        temperature=None if tempered is None else torch.tensor(tempered, device=device),
        weights=TokenWeights(
            generated=torch.tensor(generated * multiplicity, device=device),
            supervised=torch.tensor(batch.supervised.reshape(-1)[chosen] * multiplicity, device=device),
            advantage=torch.tensor(batch.advantage.reshape(-1)[chosen], device=device),
            behaviour=torch.tensor(batch.behaviour_logprobs.reshape(-1)[chosen], device=device),
        ),
    )
