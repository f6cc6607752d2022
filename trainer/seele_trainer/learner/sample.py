"""The sample that a strategy makes and the learner trains on, and the one declaration of its fields."""

# ruff: noqa: RUF009  (the functions in the defaults return `dataclasses.field`)
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
EVERY_TOKEN = int(np.iinfo(np.int64).max)

PerToken = TypeVar("PerToken")
PerSample = TypeVar("PerSample")


def _per_token(dtype: type[np.generic], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"dtype": dtype, "per_token": True})


def _per_sample(dtype: type[np.generic], default: float) -> Any:
    return field(default=default, metadata={"dtype": dtype, "per_token": False})


@dataclass(frozen=True, kw_only=True)
class SampleFields(Generic[PerToken, PerSample]):
    """The fields of samples. Packing, sending and moving to the device follow from this declaration.

    Three kinds of tokens are trained. The first two count in the denominator of the policy gradient:

    - `policy_mask` marks generated tokens, the only ones with a KL term. `behaviour_logprobs` are the sampler's, and
      `clipped` says whether their ratio is clipped as in PPO.
    - `off_policy` marks tokens of the reference solution that get a policy gradient. `shaping` is the c of their weight
      w / (w + c), where w is their probability under the policy; with 0 the weight is 1.
    - `supervised` is the weight of a token's cross-entropy in the loss, coefficient included.

    `advantage` weighs the policy gradient. At most `most_uncertain` of a sample's off-policy and supervised tokens
    learn, those with the highest entropy; the others still count in the denominators. `multiplicity` is the number of
    identical rollouts that the sample stands for; it multiplies every term and every denominator.
    """

    tokens: PerToken = _per_token(np.int64)
    policy_mask: PerToken = _per_token(np.bool_, default=None)
    advantage: PerToken = _per_token(np.float32, default=None)
    supervised: PerToken = _per_token(np.float32, default=None)
    behaviour_logprobs: PerToken = _per_token(np.float32, default=None)
    off_policy: PerToken = _per_token(np.bool_, default=None)
    clipped: PerSample = _per_sample(np.bool_, True)
    shaping: PerSample = _per_sample(np.float32, 0.0)
    most_uncertain: PerSample = _per_sample(np.int64, EVERY_TOKEN)
    multiplicity: PerSample = _per_sample(np.float32, 1.0)


FIELDS = fields(SampleFields)


@dataclass(frozen=True, kw_only=True)
class Sample(SampleFields[NDArray[Any], Any]):
    """One sequence to train on. Per-token fields have shape (tokens,) and are zero unless set, the others are scalars."""

    def __post_init__(self) -> None:
        for each in FIELDS:
            if getattr(self, each.name) is None:
                object.__setattr__(self, each.name, np.zeros(len(self.tokens), dtype=each.metadata["dtype"]))
