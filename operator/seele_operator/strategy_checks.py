"""Rules about strategies: what each needs of rollouts, steps and bounds. Lines as in `checks.py`."""

from __future__ import annotations

from collections.abc import Iterator

from seele_operator.spec import SeeleRunSpec
from seele_trainer.method_options import WITHOUT_ROLLOUTS


def strategy_problems(spec: SeeleRunSpec) -> Iterator[str]:
    """What a run's strategy cannot work with."""
    for rule in (_rounds, _unhinted, _schedule, _supervised_steps, _prefixes):
        yield from rule(spec)


def _rounds(spec: SeeleRunSpec) -> Iterator[str]:
    rounds, rollouts, strategy = spec.hints.rounds, spec.hints.rollouts_per_round, spec.training.strategy
    if strategy in WITHOUT_ROLLOUTS:
        return
    if rounds * rollouts < 2:
        yield (
            f"spec.hints.rolloutsPerRound: {rollouts} in {rounds} round leaves nothing to compare a rollout with, "
            "so every advantage is zero; use at least 2 rollouts a problem"
        )
    elif rounds * rollouts < 3 and strategy == "prefix_rft":
        yield (
            f"spec.hints.rolloutsPerRound: {rollouts} in {rounds} round{'s'[: rounds - 1]} leaves strategy prefix_rft one "
            "plain rollout beside the one with a prefix, and so no baseline; use at least 3 rollouts a problem"
        )
    elif strategy == "seele" and spec.training.advantage_group == "round" and rollouts < 2:
        yield (
            f"spec.hints.rolloutsPerRound: {rollouts} leaves each round without a baseline, so every advantage is "
            "zero; use at least 2, or training.advantageGroup: problem"
        )
    if strategy == "seele" and rounds < 2:
        yield (
            f"spec.hints.rounds: {rounds} is too few for strategy seele, which fits a curve to earlier rounds; "
            "use at least 2, such as 4"
        )


def _unhinted(spec: SeeleRunSpec) -> Iterator[str]:
    hints = spec.hints
    if hints.unhinted_share == 0 or spec.training.strategy != "seele":
        return
    total = hints.rounds * hints.rollouts_per_round
    unhinted = round(hints.unhinted_share * total)
    # A baseline group of one rollout has no gradient; the round baseline needs two hinted rollouts in every round.
    hinted_per_round = 2 if spec.training.advantage_group == "round" else 1
    lowest, highest = 2, total - hinted_per_round * hints.rounds
    if lowest <= unhinted <= highest:
        return
    place = f"spec.hints.unhintedShare: {hints.unhinted_share:g} of {total} rollouts is {unhinted} without a hint"
    if highest < lowest:
        yield f"{place}, and rounds with so few rollouts can spare none; use 0, or raise rolloutsPerRound"
    elif unhinted < lowest:
        yield f"{place}, too few for a baseline of their own; use 0, or at least {lowest / total:g}"
    else:
        yield f"{place}, which leaves too few hinted ones in each round; use at most {highest / total:g}"


def _schedule(spec: SeeleRunSpec) -> Iterator[str]:
    training = spec.training
    updates, supervised = training.steps * training.updates_per_step, training.sft_steps * training.updates_per_step
    if training.warmup_updates >= updates:
        yield (
            f"spec.training.warmupUpdates: {training.warmup_updates} is not below the run's {updates} updates (steps "
            f"times problemsPerStep by problemsPerUpdate); use fewer, such as {updates // 20}"
        )
    elif training.strategy == "sft_then_grpo" and supervised:
        shorter = min(supervised, updates - supervised)
        if training.warmup_updates >= shorter:
            yield (
                f"spec.training.warmupUpdates: {training.warmup_updates} is not below the {shorter} updates of the shorter "
                f"phase of sft_then_grpo, each of which has its own warm-up; use fewer, such as {shorter // 20}"
            )


def _supervised_steps(spec: SeeleRunSpec) -> Iterator[str]:
    training = spec.training
    if training.strategy == "sft_then_grpo" and training.sft_steps < 1:
        yield (
            f"spec.training.sftThenGrpo.sftShare: {training.sft_then_grpo.sft_share:g} of {training.steps} steps is no whole "
            "step of supervised fine-tuning; use more, or strategy grpo"
        )


def _prefixes(spec: SeeleRunSpec) -> Iterator[str]:
    options = spec.training.prefix_rft
    for field, bound in (
        ("firstLowerBound", options.first_lower_bound),
        ("lastLowerBound", options.last_lower_bound),
    ):
        if bound > options.longest_prefix:
            yield (
                f"spec.training.prefixRft.{field}: {bound:g} is above longestPrefix, which is {options.longest_prefix:g}; "
                "use at most that"
            )
