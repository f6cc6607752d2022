"""Sample: rules of a SeeleRun, in Python and in CEL."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """One sequence to train on, each array of shape (tokens,).

    Three kinds of tokens train; the first two count in the denominator of the policy gradient:

    - `policy_mask` marks generated tokens, which are also those of the KL term. `behaviour_logprobs` are the sampler's, and
      `clipped` says whether the ratio to them is clipped as in PPO;
    - `off_policy` marks tokens of the reference solution that get a policy gradient all the same. `shaping` is the c of
      their weight w / (w + c), w being their probability under the policy; with 0 their weight is 1;
    - `supervised` is the weight of a token's cross-entropy in the loss, coefficient included.

    `advantage` weighs the policy gradient and is 0 elsewhere. Where `most_uncertain` is given, only so many of the
    sample's off-policy and supervised tokens learn, those of whose choice the policy is least certain (highest entropy);
    the others still count in the denominators. `multiplicity` is how many identical rollouts this one stands for; it
    multiplies every term and every denominator.
    """

    tokens: NDArray[np.int64]
    policy_mask: NDArray[np.bool_]
    advantage: FloatArray
    supervised: FloatArray
    behaviour_logprobs: FloatArray
    off_policy: NDArray[np.bool_]
    clipped: bool = True
    shaping: float = 0.0
    most_uncertain: int | None = None
    multiplicity: float = 1.0
