"""The rules of `strategy_checks.py` as CEL: what each strategy needs of rollouts, steps and bounds."""

from __future__ import annotations

from collections.abc import Iterable

from seele_operator.cel_rule import Rule
from seele_trainer.method_options import WITHOUT_ROLLOUTS


def is_one_of(strategies: Iterable[str]) -> str:
    """Whether the run's strategy is one of these."""
    return "(" + " || ".join(f"self.training.strategy == '{name}'" for name in strategies) + ")"


PROBLEM_ROLLOUTS = "self.hints.rounds * self.hints.rolloutsPerRound"
_SEELE = "self.training.strategy == 'seele'"
_BY_ROUND = "self.training.advantageGroup == 'round'"

_ROUNDS = (
    Rule(
        "spec",
        f"{is_one_of(WITHOUT_ROLLOUTS)} || {PROBLEM_ROLLOUTS} >= 2",
        "spec.hints.rolloutsPerRound: leaves nothing to compare a rollout with, so every advantage is zero; "
        "use at least 2 rollouts a problem",
    ),
    Rule(
        "spec",
        f"self.training.strategy != 'prefix_rft' || {PROBLEM_ROLLOUTS} != 2",
        "spec.hints.rolloutsPerRound: leaves strategy prefix_rft one plain rollout beside the one with a prefix, and so no "
        "baseline; use at least 3 rollouts a problem",
    ),
    Rule(
        "spec",
        f"!({_SEELE} && {_BY_ROUND} && {PROBLEM_ROLLOUTS} >= 2) || self.hints.rolloutsPerRound >= 2",
        "spec.hints.rolloutsPerRound: leaves each round without a baseline, so every advantage is zero; "
        "use at least 2, or training.advantageGroup: problem",
    ),
    Rule(
        "spec",
        f"!({_SEELE}) || self.hints.rounds >= 2",
        "spec.hints.rounds: is too few for strategy seele, which fits a curve to earlier rounds; "
        "use at least 2, such as 4",
    ),
)

_UNHINTED = f"(self.hints.unhintedShare * double({PROBLEM_ROLLOUTS}))"
_MOST_UNHINTED = f"(self.hints.rounds * (self.hints.rolloutsPerRound - ({_BY_ROUND} ? 2 : 1)))"
_HINTS = (
    # Python rounds a half to the even number: 1.5 up to 2, and a half above the highest down where that one is even.
    Rule(
        "spec",
        f"!({_SEELE}) || self.hints.unhintedShare == 0.0 || {_UNHINTED} >= 1.5 || {_MOST_UNHINTED} < 2",
        "spec.hints.unhintedShare: is too few rollouts for a baseline of their own; use 0, or more",
    ),
    Rule(
        "spec",
        f"!({_SEELE}) || self.hints.unhintedShare == 0.0 || {_MOST_UNHINTED} < 2 || "
        f"{_UNHINTED} < double({_MOST_UNHINTED}) + 0.5 || "
        f"({_UNHINTED} == double({_MOST_UNHINTED}) + 0.5 && {_MOST_UNHINTED} % 2 == 0)",
        "spec.hints.unhintedShare: leaves too few hinted rollouts in each round; use 0, or less",
    ),
    Rule(
        "spec",
        f"!({_SEELE}) || self.hints.unhintedShare == 0.0 || {_MOST_UNHINTED} >= 2",
        "spec.hints.unhintedShare: rounds with so few rollouts can spare none; use 0, or raise rolloutsPerRound",
    ),
)

_UPDATES_PER_STEP = (
    "(self.training.problemsPerStep < self.training.problemsPerUpdate ? 1 : "
    "self.training.problemsPerStep / self.training.problemsPerUpdate)"
)
_SFT_THEN_GRPO = "self.training.strategy == 'sft_then_grpo'"
# Rounded down these are the supervised steps. Compared as they are: old and new servers round differently.
_SFT_STEPS = "(self.training.sftThenGrpo.sftShare * double(self.training.steps) + 0.000000001)"
_WARMUP_STEPS = f"(self.training.warmupUpdates / {_UPDATES_PER_STEP})"
_SCHEDULE = (
    Rule(
        "spec",
        f"self.training.warmupUpdates < self.training.steps * {_UPDATES_PER_STEP}",
        "spec.training.warmupUpdates: is not below the run's updates (steps times problemsPerStep by "
        "problemsPerUpdate); use fewer",
    ),
    Rule(
        "spec",
        f"!({_SFT_THEN_GRPO}) || {_SFT_STEPS} < 1.0 || "
        f"self.training.warmupUpdates >= self.training.steps * {_UPDATES_PER_STEP} || "
        f"({_SFT_STEPS} >= double({_WARMUP_STEPS} + 1) && {_SFT_STEPS} < double(self.training.steps - {_WARMUP_STEPS}))",
        "spec.training.warmupUpdates: is not below the updates of the shorter phase of sft_then_grpo, each of which has its "
        "own warm-up; use fewer",
    ),
    Rule(
        "spec",
        f"!({_SFT_THEN_GRPO}) || {_SFT_STEPS} >= 1.0",
        "spec.training.sftThenGrpo.sftShare: is no whole step of supervised fine-tuning; use more, or strategy grpo",
    ),
)

_PREFIXES = tuple(
    Rule(
        "spec",
        f"self.training.prefixRft.{field} <= self.training.prefixRft.longestPrefix",
        f"spec.training.prefixRft.{field}: is above longestPrefix; use at most that",
    )
    for field in ("firstLowerBound", "lastLowerBound")
)

STRATEGY_RULES: tuple[Rule, ...] = (*_ROUNDS, *_HINTS, *_SCHEDULE, *_PREFIXES)
