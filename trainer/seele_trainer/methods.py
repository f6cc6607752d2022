"""The training methods: facts that other code asks about, and the options that only one method has.

A run names its method in the field `training.strategy`: "method" and "strategy" mean the same thing. Defaults are those
of each method's paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

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
"""Each method has a row in `METHODS` and a class in a file of its name under strategies/."""


@dataclass(frozen=True)
class Method:
    """What a method asks of data, rollouts and context length."""

    shows_hints: bool = False
    """Part of the solution precedes a completion, so both have to fit into the context."""
    adapts_hints: bool = False
    """The hint controller chooses each round's hint from the results of earlier rounds."""
    trains_on_solutions: bool = False
    """Whole solutions are learned, so they have to fit into the context after their prompts."""
    supervised: bool = False
    """Some updates consist of solutions alone, one per problem."""
    samples: bool = True
    """Rollouts are sampled to train on."""
    min_rollouts: int = 2
    """Rollouts that a problem needs for an advantage other than zero."""

    @property
    def reads_solutions(self) -> bool:
        """Whether problems need worked solutions; otherwise answers are enough."""
        return self.shows_hints or self.trains_on_solutions or self.supervised


METHODS: Mapping[StrategyName, Method] = {
    "seele": Method(shows_hints=True, adapts_hints=True),
    "grpo": Method(),
    "sft": Method(trains_on_solutions=True, supervised=True, samples=False, min_rollouts=0),
    "sft_then_grpo": Method(trains_on_solutions=True, supervised=True),
    "uft": Method(shows_hints=True),
    # One rollout has a prefix; the others need a baseline among themselves.
    "prefix_rft": Method(shows_hints=True, min_rollouts=3),
    "luffy": Method(trains_on_solutions=True),
    "fixed_hint": Method(shows_hints=True),
}


class SftThenGrpo(FrozenModel):
    """Supervised fine-tuning on solutions first, then GRPO (as compared in arXiv 2604.23747)."""

    sft_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.25
    """Share of the steps that are supervised, rounded down to whole steps; at least one step."""
    sft_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the supervised steps. Defaults to `learningRate`. Each phase has its own schedule."""


class Uft(FrozenModel):
    """Hints that a schedule phases out (UFT, arXiv 2505.16984)."""

    hint_share: PositiveFraction = 0.6
    """Share of the steps in which hints are shown. Later steps show none."""
    slices: PositiveInt = 5
    """Slices that a solution is cut into, at the ends of its steps. A solution with fewer steps has one slice per step."""
    first_probability: Fraction = 0.95
    """Probability that a slice is shown at the first step. It then follows a cosine down to `lastProbability`."""
    last_probability: Fraction = 0.05
    """Probability that a slice is shown at the last step with hints."""


class PrefixRft(FrozenModel):
    """One rollout in each group continues a prefix of the solution (Prefix-RFT, arXiv 2507.01679)."""

    longest_prefix: Fraction = 0.95
    """Upper bound of the prefix, as a share of the part of the solution that may be shown."""
    first_lower_bound: Fraction = 0.95
    """Lower bound of the prefix at the first step. It then follows a cosine down to `lastLowerBound`."""
    last_lower_bound: Fraction = 0.05
    """Lower bound of the prefix at the end of the run."""
    entropy_share: PositiveFraction = 0.2
    """Share of the prefix's tokens that keep their gradient: those the policy is least certain of."""


class Luffy(FrozenModel):
    """One rollout in each group is the reference solution itself (LUFFY, arXiv 2504.14945)."""

    shaping: PositiveFloat = 0.1
    """Constant c in the weight w / (w + c) of a reference token, where w is its probability under the policy."""


class FixedHint(FrozenModel):
    """The same hint rate for every problem at every step: SEELE without its controller."""

    rate: Fraction = 0.5
    """Share of the solution that is shown."""
