"""The training methods by name, and the options that only one of them has. Defaults are those of each method's paper."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

from pydantic import Field

from seele_trainer.frozen_model import Fraction, FrozenModel, PositiveFloat, PositiveFraction, PositiveInt

StrategyName: TypeAlias = Literal[
    "seele",
    "grpo",
    "sft",
    "sft_then_grpo",
    "uft",
    "prefix_rft",
    "luffy",
    "fixed_hint",
]
"""The registry: every name is a class in a file of that name under strategies/."""

WITHOUT_HINTS = ("grpo", "sft", "sft_then_grpo", "luffy")
"""Methods whose completions follow the plain prompt. A method is taken for a hinted one unless it is named here."""
WITH_HINTS = tuple(name for name in get_args(StrategyName) if name not in WITHOUT_HINTS)
"""Methods that put part of a solution before a completion, so that both have to fit into the context."""
ON_SOLUTIONS = ("sft", "sft_then_grpo", "luffy")
"""Methods that train on whole solutions, which have to fit into the context behind their prompts."""
SUPERVISED = ("sft", "sft_then_grpo")
"""Methods with updates on nothing but solutions, one a problem."""
WITHOUT_ROLLOUTS = ("sft",)
"""Methods that sample nothing to train on."""


class SftThenGrpo(FrozenModel):
    """Supervised fine-tuning on solutions first, then GRPO (as compared in arXiv 2604.23747)."""

    sft_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the steps that are supervised; rounded down to whole steps, at least one."""
    sft_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the supervised steps; `learningRate` where absent. Both phases have their own schedule."""


class Uft(FrozenModel):
    """Hints that a schedule takes away (UFT, arXiv 2505.16984)."""

    hint_share: PositiveFraction = 0.6
    """Share of the steps in which hints are shown; none afterwards."""
    slices: PositiveInt = 5
    """Slices that a solution is cut into at the ends of steps; as many as it has steps where those are fewer."""
    first_probability: Fraction = 0.95
    """Probability that a slice is shown at the first step; from there it falls by a cosine."""
    last_probability: Fraction = 0.05
    """Probability that a slice is shown where hints end."""


class PrefixRft(FrozenModel):
    """One rollout in each group continues a prefix of the solution (Prefix-RFT, arXiv 2507.01679)."""

    longest_prefix: Fraction = 0.95
    """Upper bound of the prefix, as a share of what may be shown of the solution."""
    first_lower_bound: Fraction = 0.95
    """Lower bound of the prefix at the first step; from there it falls by a cosine."""
    last_lower_bound: Fraction = 0.05
    """Lower bound of the prefix at the end of the run."""
    entropy_share: PositiveFraction = 0.2
    """Share of the prefix's tokens that keep their gradient: those that the policy is least certain of."""


class Luffy(FrozenModel):
    """One rollout in each group is the reference solution itself (LUFFY, arXiv 2504.14945)."""

    shaping: PositiveFloat = 0.1
    """The constant c of the weight w / (w + c) of a reference token, w being its probability under the policy."""


class FixedHint(FrozenModel):
    """The same hinting rate for every problem at every step: what SEELE is without its controller."""

    rate: Fraction = 0.5
    """Share of the solution that is shown."""
