"""The loss, as plain functions of tensors: clipped policy gradient, KL to the initial model, cross-entropy of hints.

All functions work on a flat list of tokens, each predicted from what stands before it. Every term is a sum over the
tokens at hand divided once by a global denominator (`Denominators`), so that adding up the micro-batches of all ranks
gives the mean over the whole update however the tokens were split (Eq. 47 and 48 of arXiv 2509.06923).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# exp() of more is useless for a gradient and soon infinite in float32.
_LARGEST_LOG_RATIO = 20.0
# Elements of one chunk of logits that are held in float32 at a time: 256 MiB.
_CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Denominators:
    """What the two streams of an update are divided by: tokens of all ranks and micro-batches, times their
    multiplicity.

    `policy` counts generated tokens, `supervised` the tokens with a supervised weight.
    """

    policy: float
    supervised: float


@dataclass(frozen=True)
class Coefficients:
    """Constants of the loss: clip range, importance cap, and the weights of the KL and of the hint term."""

    clip_epsilon: float
    importance_cap: float
    kl: float
    hint: float


@dataclass(frozen=True)
class TokenWeights:
    """What each token weighs, all of shape (tokens,).

    `generated` is 1 for generated tokens and 0 for others, `supervised` the weight of the cross-entropy; both are
    already multiplied by the sample's multiplicity. `advantage` and `behaviour` (the sampler's log-probability)
    matter only where `generated` is not 0.
    """

    generated: Tensor
    supervised: Tensor
    advantage: Tensor
    behaviour: Tensor


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one micro-batch, each over its global denominator: they add up over micro-batches and ranks.

    `total` is the loss to differentiate (after the coefficients); `clip_fraction` is the share of generated tokens
    whose gradient is cut, `mismatch_kl` the k3 estimate from the sampler's tokens of KL(sampler || policy).
    """

    policy: Tensor
    hint: Tensor
    kl: Tensor
    total: Tensor
    clip_fraction: Tensor
    mismatch_kl: Tensor

    def values(self) -> Tensor:
        """All terms without gradient, in the order of the fields, (6,)."""
        return torch.stack([getattr(self, field.name).detach() for field in fields(self)])


def token_logprobs(logits: Tensor, targets: Tensor, temperature: Tensor | None = None) -> Tensor:
    """Log-probability of each target: logits (tokens, vocabulary) and targets (tokens,) to float32 (tokens,).

    `temperature` of shape (tokens,) divides the logits. Only one chunk of tokens is held in float32 at a time, in the
    backward pass too, because the logits are by far the largest tensor of an update.
    """
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    scale = torch.ones_like(targets, dtype=torch.float32) if temperature is None else temperature.reciprocal()
    if logits.shape[0] <= rows:
        return _chunk_logprobs(logits, targets, scale)
    chunks = zip(*(torch.split(tensor, rows) for tensor in (logits, targets, scale)), strict=True)
    return torch.cat([checkpoint(_chunk_logprobs, *chunk, use_reentrant=False) for chunk in chunks])


def _chunk_logprobs(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    scaled = logits.float() * scale[:, None]
    return torch.log_softmax(scaled, dim=-1).gather(-1, targets[:, None]).squeeze(-1)


def importance_ratio(logprobs: Tensor, behaviour: Tensor) -> Tensor:
    """Probability ratio of the policy to the sampler, finite whatever the difference."""
    return (logprobs - behaviour).clamp(max=_LARGEST_LOG_RATIO).exp()


def policy_loss(ratio: Tensor, advantage: Tensor, epsilon: float, cap: float) -> Tensor:
    """Clipped policy gradient of each token, `-min(w A, clip(w, 1-eps, 1+eps) A)` with the weight `w = min(r, cap)`.

    The old policy is the rollout engine itself, so `r` holds both the update's own drift and the engine's numerical
    mismatch. The clip is PPO's (arXiv 1707.06347): no gradient where A > 0 and r > 1+eps, or A < 0 and r < 1-eps. It
    leaves r unbounded where A < 0, and there the weight is truncated at `cap`, without gradient beyond: dual clip
    (arXiv 1912.09729), a truncated importance weight for tokens that the engine found far too unlikely.
    """
    weight = ratio.clamp(max=cap)
    return -torch.minimum(weight * advantage, weight.clamp(1.0 - epsilon, 1.0 + epsilon) * advantage)


def is_clipped(ratio: Tensor, advantage: Tensor, epsilon: float, cap: float) -> Tensor:
    """Whether `policy_loss` gives a token no gradient because its ratio is out of bounds; boolean, (tokens,)."""
    upper = min(1.0 + epsilon, cap)
    return ((advantage > 0) & (ratio > upper)) | ((advantage < 0) & ((ratio < 1.0 - epsilon) | (ratio > cap)))


def k3(log_ratio: Tensor) -> Tensor:
    """The k3 estimate `exp(x) - x - 1` of KL(q || p) from a sample of q, where x = log p - log q (Schulman, 2020)."""
    bounded = log_ratio.clamp(max=_LARGEST_LOG_RATIO)
    return bounded.exp() - bounded - 1.0


def seele_loss(
    logprobs: Tensor,
    reference: Tensor | None,
    weights: TokenWeights,
    coefficients: Coefficients,
    denominators: Denominators,
) -> LossTerms:
    """All terms for one micro-batch of tokens.

    `logprobs` are the policy's with gradient, `reference` the initial model's without (None leaves the KL term out),
    both of shape (tokens,). Hint tokens are outside `generated`, so no advantage ever reaches them, and the other way
    round.
    """
    policy_tokens = max(denominators.policy, 1.0)
    supervised_tokens = max(denominators.supervised, 1.0)
    epsilon, cap = coefficients.clip_epsilon, coefficients.importance_cap
    # Outside the generated tokens there is no behaviour: a ratio of 1 keeps their zero weight from meeting an infinity.
    behaviour = torch.where(weights.generated > 0, weights.behaviour, logprobs.detach())
    ratio = importance_ratio(logprobs, behaviour)

    policy = (policy_loss(ratio, weights.advantage, epsilon, cap) * weights.generated).sum() / policy_tokens
    hint = -(logprobs * weights.supervised).sum() / supervised_tokens
    kl = torch.zeros_like(policy) if reference is None else _kl(logprobs, reference, weights.generated) / policy_tokens
    with torch.no_grad():
        clipped = (is_clipped(ratio, weights.advantage, epsilon, cap) * weights.generated).sum() / policy_tokens
        mismatch = (k3(logprobs - behaviour) * weights.generated).sum() / policy_tokens
    return LossTerms(
        policy=policy,
        hint=hint,
        kl=kl,
        total=policy + coefficients.hint * hint + coefficients.kl * kl,
        clip_fraction=clipped,
        mismatch_kl=mismatch,
    )


def _kl(logprobs: Tensor, reference: Tensor, generated: Tensor) -> Tensor:
    return (k3(reference - logprobs) * generated).sum()
