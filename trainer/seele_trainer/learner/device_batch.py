"""A micro-batch as the tensors that the model and the loss take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seele_trainer.learner.loss import TokenWeights
from seele_trainer.learner.packing import MicroBatch


@dataclass(frozen=True)
class DeviceBatch:
    """Padded `tokens` (rows, width); flat `positions` of the tokens to score, and their temperatures and weights.

    `temperature` is the sampling temperature for tokens with a policy gradient, whose policy is the tempered one, and 1 for
    supervised ones; None where it is 1 for all. `uncertain` is None where all tokens of all rows learn.
    """

    tokens: Tensor
    positions: Tensor
    temperature: Tensor | None
    weights: TokenWeights
    uncertain: UncertainTokens | None


@dataclass(frozen=True)
class UncertainTokens:
    """How many tokens of each row learn, out of the candidates: `rows` and `candidates` (tokens,), `counts` (rows,)."""

    rows: Tensor
    candidates: Tensor
    counts: Tensor


def to_device(batch: MicroBatch, device: torch.device, temperature: float) -> DeviceBatch:
    """Move to the device what the loss needs of a micro-batch: only tokens of some weight are scored, at least one."""
    chosen = np.flatnonzero(batch.trained)
    if not len(chosen):
        # Ranks have to run the same passes, so a micro-batch without samples scores a token of no weight.
        chosen = np.array([1])
    width = batch.tokens.shape[1]

    def of_tokens(array: NDArray[Any]) -> NDArray[Any]:
        """Values of the chosen tokens, of an array (rows, width) or (rows,)."""
        return (array.reshape(-1) if array.ndim == 2 else np.repeat(array, width))[chosen]

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.tensor(array, device=device)

    multiplicity, supervised = of_tokens(batch.multiplicity), of_tokens(batch.supervised)
    generated, off_policy = of_tokens(batch.policy_mask), of_tokens(batch.off_policy)
    tempered = None if temperature == 1.0 else np.where(generated | off_policy, temperature, 1.0).astype(np.float32)
    uncertain = None
    if (batch.most_uncertain >= 0).any():
        uncertain = UncertainTokens(
            rows=tensor(chosen // width),
            candidates=tensor(off_policy | (supervised != 0)),
            counts=tensor(np.where(batch.most_uncertain < 0, width, batch.most_uncertain)),
        )
    return DeviceBatch(
        tokens=tensor(batch.tokens),
        positions=tensor(chosen),
        temperature=None if tempered is None else tensor(tempered),
        weights=TokenWeights(
            generated=tensor(generated * multiplicity),
            off_policy=tensor(off_policy * multiplicity),
            supervised=tensor((supervised != 0) * multiplicity),
            cross_entropy=tensor(supervised * multiplicity),
            advantage=tensor(of_tokens(batch.advantage)),
            behaviour=tensor(of_tokens(batch.behaviour_logprobs)),
            clipped=tensor(of_tokens(batch.clipped)),
            shaping=tensor(of_tokens(batch.shaping)),
        ),
        uncertain=uncertain,
    )
