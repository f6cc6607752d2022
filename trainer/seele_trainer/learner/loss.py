"""The loss as plain functions of tensors: on- and off-policy gradient, KL to the initial model, cross-entropy.

All functions take a flat list of tokens, each predicted from those before it. Every term is a sum over the given
tokens divided by a global denominator (`Denominators`), so that the micro-batches of all ranks add up to the mean over
the whole update however the tokens were split (Eq. 47 and 48 of arXiv 2509.06923).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from seele_trainer.learner.sample import Sample, SampleFields

# exp() of more is useless for a gradient and soon infinite in float32.
_MAX_LOG_RATIO = 20.0
# Elements of one chunk of logits that are held in float32 at a time: 256 MiB.
_CHUNK_ELEMENTS = 1 << 26


@dataclass(frozen=True)
class Denominators:
    """What the terms of an update are divided by: tokens of all ranks and micro-batches, times their multiplicity.

    `generated` counts generated tokens, `off_policy` tokens of reference solutions with a policy gradient, and
    `supervised` tokens with a cross-entropy.
    """

    generated: float
    off_policy: float
    supervised: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Self:
        """The denominators of an update on these samples."""
        names = ("policy_mask", "off_policy", "supervised")
        return cls(
            *(float(sum(one.multiplicity * np.count_nonzero(getattr(one, name)) for one in samples)) for name in names)
        )

    @property
    def policy(self) -> float:
        """Tokens with a policy gradient: tokens of a solution share a group with sampled ones and weigh the same."""
        return self.generated + self.off_policy

    @property
    def all(self) -> float:
        """Tokens of the whole loss."""
        return self.policy + self.supervised


@dataclass(frozen=True)
class Coefficients:
    """Constants of the loss: clip range, importance cap, and the weight of the KL term."""

    clip_epsilon: float
    importance_cap: float
    kl: float


@dataclass(frozen=True)
class LossTerms:
    """Scalars of one micro-batch, each over its global denominator: they add up over micro-batches and ranks.

    `supervised` is the mean cross-entropy of supervised tokens before their weights, without gradient; `total` is the
    loss to differentiate, after weights and coefficients; `clip_fraction` is the share of generated tokens whose
    gradient is cut off; `mismatch_kl` is the k3 estimate of KL(sampler || policy) from the sampler's tokens.
    """

    policy: Tensor
    supervised: Tensor
    kl: Tensor
    total: Tensor
    clip_fraction: Tensor
    mismatch_kl: Tensor

    def values(self) -> Tensor:
        """All terms without gradient, in the order of the fields, (6,)."""
        return torch.stack([getattr(self, field.name).detach() for field in fields(self)])


def token_logprobs(
    logits: Tensor, targets: Tensor, temperature: Tensor | None = None, *, with_entropy: bool = False
) -> Tensor:
    """Log-probability of each target: logits (tokens, vocabulary) and targets (tokens,) to float32 (tokens,).

    `temperature` of shape (tokens,) divides the logits. With `with_entropy` the result is (2, tokens): the second row
    is the entropy of each prediction in nats, without gradient. Only one chunk of tokens is held in float32 at a time,
    in the backward pass too, because the logits are by far the largest tensor of an update.
    """
    rows = max(1, _CHUNK_ELEMENTS // logits.shape[-1])
    scale = torch.ones_like(targets, dtype=torch.float32) if temperature is None else temperature.reciprocal()
    score = _chunk_scores if with_entropy else _chunk_logprobs
    if logits.shape[0] <= rows:
        return score(logits, targets, scale)
    chunks = zip(*(torch.split(tensor, rows) for tensor in (logits, targets, scale)), strict=True)
    return torch.cat([checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks], dim=-1)


def _chunk_logprobs(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    return _log_softmax(logits, scale).gather(-1, targets[:, None]).squeeze(-1)


def _chunk_scores(logits: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    logprobs = _log_softmax(logits, scale)
    with torch.no_grad():
        entropy = torch.special.entr(logprobs.exp()).sum(-1)
    return torch.stack([logprobs.gather(-1, targets[:, None]).squeeze(-1), entropy])


def _log_softmax(logits: Tensor, scale: Tensor) -> Tensor:
    return torch.log_softmax(logits.float() * scale[:, None], dim=-1)


def most_uncertain(entropy: Tensor, candidates: Tensor, rows: Tensor, counts: Tensor) -> Tensor:
    """Which tokens are among the `counts` candidates of their row with the highest entropy; boolean, (tokens,).

    All arguments have shape (tokens,); `candidates` is boolean, and `counts` is the same for all tokens of a row. Ties
    go to the first token. Tokens compete within their own sequence, so the choice does not depend on what else is in
    the micro-batch.
    """
    by_entropy = torch.where(candidates, entropy, -torch.inf).argsort(descending=True, stable=True)
    order = by_entropy[rows[by_entropy].argsort(stable=True)]
    sizes = torch.bincount(rows)
    first = (sizes.cumsum(0) - sizes)[rows[order]]
    chosen = torch.empty_like(candidates)
    chosen[order] = torch.arange(len(order), device=order.device) - first < counts[order]
    return chosen & candidates


def importance_ratio(logprobs: Tensor, behaviour: Tensor) -> Tensor:
    """Probability ratio of the policy to the sampler, finite whatever the difference."""
    return (logprobs - behaviour).clamp(max=_MAX_LOG_RATIO).exp()


def policy_loss(ratio: Tensor, advantage: Tensor, clipped: Tensor, epsilon: float, cap: float) -> Tensor:
    """Clipped policy gradient of each token, `-min(w A, clip(w, 1-eps, 1+eps) A)` with the weight `w = min(r, cap)`.

    The old policy is the rollout engine itself, so `r` includes both the drift within the update and the engine's
    numerical mismatch. The clip is PPO's (arXiv 1707.06347): no gradient if A > 0 and r > 1+eps, or A < 0 and r < 1-eps.
    PPO leaves r unbounded for A < 0; here the weight is truncated at `cap`, without gradient beyond it, as in dual clip
    (arXiv 1912.09729), for tokens that the engine found far too unlikely. Tokens that are not `clipped` only have the
    truncated weight.
    """
    weight = ratio.clamp(max=cap)
    bounded = torch.where(clipped, weight.clamp(1.0 - epsilon, 1.0 + epsilon), weight)
    return -torch.minimum(weight * advantage, bounded * advantage)


def off_policy_loss(logprobs: Tensor, advantage: Tensor, shaping: Tensor) -> Tensor:
    """Policy gradient of each token that was not sampled, `-A f(w)` with w the policy's probability, never clipped.

    `f(w) = w / (w + c)` with c = `shaping` is LUFFY's (arXiv 2504.14945): the behaviour probability is taken as 1, and
    the shaping keeps the gradient of unlikely tokens alive. If c is 0, f is the ratio to the current policy, which is
    1: the gradient is `-A` times that of log w.
    """
    probability = logprobs.clamp(min=-_MAX_LOG_RATIO).exp()
    shaped = probability / (probability + torch.where(shaping > 0, shaping, 1.0))
    ratio = (logprobs - logprobs.detach()).exp()
    return -advantage * torch.where(shaping > 0, shaped, ratio)


def is_clipped(ratio: Tensor, advantage: Tensor, clipped: Tensor, epsilon: float, cap: float) -> Tensor:
    """Whether `policy_loss` gives a token no gradient because of its ratio; boolean, (tokens,)."""
    by_ppo = ((advantage > 0) & (ratio > 1.0 + epsilon)) | ((advantage < 0) & (ratio < 1.0 - epsilon))
    return (clipped & by_ppo) | ((advantage != 0) & (ratio > cap))


def k3(log_ratio: Tensor) -> Tensor:
    """The k3 estimate `exp(x) - x - 1` of KL(q || p) from a sample of q, where x = log p - log q (Schulman, 2020)."""
    bounded = log_ratio.clamp(max=_MAX_LOG_RATIO)
    return bounded.exp() - bounded - 1.0


def seele_loss(
    logprobs: Tensor,
    reference: Tensor | None,
    tokens: SampleFields[Tensor, Tensor],
    coefficients: Coefficients,
    denominators: Denominators,
    kept: Tensor | None = None,
) -> LossTerms:
    """All terms for one micro-batch of tokens, for every strategy.

    `logprobs` are the policy's, with gradient, and `reference` the initial model's, without; None omits the KL term.
    `tokens` has the fields of the tokens' samples. Off-policy and supervised tokens outside `kept` (boolean) have no
    gradient. All tensors have shape (tokens,). Hint tokens are neither generated nor off-policy, so no advantage ever
    reaches them.
    """
    generated_tokens, supervised_tokens = max(denominators.generated, 1.0), max(denominators.supervised, 1.0)
    epsilon, cap = coefficients.clip_epsilon, coefficients.importance_cap
    generated = tokens.policy_mask * tokens.multiplicity
    advantage, cross_entropy = tokens.advantage, tokens.supervised * tokens.multiplicity
    if kept is not None:
        learns = kept | tokens.policy_mask
        advantage, cross_entropy = advantage * learns, cross_entropy * learns
    # Other tokens have no behaviour: a ratio of 1 keeps their zero weight from being multiplied by infinity.
    behaviour = torch.where(tokens.policy_mask, tokens.behaviour_logprobs, logprobs.detach())
    ratio = importance_ratio(logprobs, behaviour)

    on_policy = policy_loss(ratio, advantage, tokens.clipped, epsilon, cap) * generated
    off_policy = off_policy_loss(logprobs, advantage, tokens.shaping) * (tokens.off_policy * tokens.multiplicity)
    policy = (on_policy + off_policy).sum() / max(denominators.policy, 1.0)
    weighted = -(logprobs * cross_entropy).sum() / supervised_tokens
    kl = torch.zeros_like(policy)
    if reference is not None:
        kl = (k3(reference - logprobs) * generated).sum() / generated_tokens
    with torch.no_grad():
        cut = is_clipped(ratio, advantage, tokens.clipped, epsilon, cap)
        clipped = (cut * generated).sum() / generated_tokens
        mismatch = (k3(logprobs - behaviour) * generated).sum() / generated_tokens
        supervised = -(logprobs * ((tokens.supervised != 0) * tokens.multiplicity)).sum() / supervised_tokens
    return LossTerms(
        policy=policy,
        supervised=supervised,
        kl=kl,
        total=policy + weighted + coefficients.kl * kl,
        clip_fraction=clipped,
        mismatch_kl=mismatch,
    )
