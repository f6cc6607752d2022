"""Rules about strategies: what each needs of rollouts, steps and bounds. Lines as in `checks.py`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seele_operator.api.problems import yaml_path
from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import PROBLEM_ROLLOUTS, Rule, is_one_of
from seele_trainer.methods import SUPERVISED, WITHOUT_ROLLOUTS


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

_BATCH = "remove it: batches follow from training.problemsPerUpdate and training.tokensPerMicroBatch"

_PRECISION = "set model.dtype"

OWNED_BY_SEELE: Mapping[tuple[str, ...], str] = {
    ("train_batch_size",): _BATCH,
    ("train_micro_batch_size_per_gpu",): _BATCH,
    ("gradient_accumulation_steps",): _BATCH,
    ("managed_gradient_accumulation",): _BATCH,
    ("prescale_gradients",): "remove it: the loss is scaled by global token counts already",
    ("gradient_predivide_factor",): "remove it: the loss is scaled by global token counts already",
    ("gradient_clipping",): "set training.maxGradientNorm",
    ("optimizer",): "set training.learningRate, training.adamBetas and training.weightDecay",
    ("scheduler",): "set training.learningRateSchedule and training.warmupUpdates",
    ("zero_optimization", "stage"): "set trainer.deepspeed.zeroStage",
    ("zero_optimization", "offload_optimizer", "device"): "set trainer.deepspeed.offloadOptimizer",
    ("zero_optimization", "offload_param", "device"): "set trainer.deepspeed.offloadParameters",
    ("fp16", "enabled"): _PRECISION,
    ("bf16", "enabled"): _PRECISION,
    ("torch_autocast", "enabled"): _PRECISION,
}
"""By path of keys. The learner draws its own batches, sets the learning rate and scales the loss."""


def _batches(spec: SeeleRunSpec) -> Iterator[str]:
    step, update = spec.training.problems_per_step, spec.training.problems_per_update
    if step % update:
        divisor = max(size for size in range(1, min(step, update) + 1) if step % size == 0)
        yield (
            f"spec.training.problemsPerUpdate: {update} does not divide problemsPerStep, which is {step}; "
            f"use a divisor of it, such as {divisor}"
        )
    ranks = spec.trainer.world_size
    if spec.training.strategy in SUPERVISED:
        sequences, which = update, "solutions (problemsPerUpdate)"
    else:
        sequences = update * spec.hints.rounds * spec.hints.rollouts_per_round
        which = "rollouts (problemsPerUpdate times rounds times rolloutsPerRound)"
    if sequences < ranks:
        yield (
            f"spec.trainer.replicas: {spec.trainer.replicas} times processesPerReplica "
            f"{spec.trainer.processes_per_replica} makes {ranks} ranks, and an update has only {sequences} {which}; "
            f"use at most {sequences} ranks"
        )


def _deepspeed(spec: SeeleRunSpec) -> Iterator[str]:
    def given(overrides: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
        for key, value in overrides.items():
            remedy = OWNED_BY_SEELE.get((*path, key))
            if remedy is not None:
                place = yaml_path(("spec", "trainer", "deepspeed", "overrides", *path, key))
                yield f"{place}: is set by Seele itself; {remedy}"
            elif isinstance(value, Mapping):
                yield from given(value, (*path, str(key)))

    yield from given(spec.trainer.deepspeed.overrides, ())


_RANKS = "self.trainer.replicas * self.trainer.processesPerReplica"

_BATCHES = (
    Rule(
        "spec",
        "self.training.problemsPerStep % self.training.problemsPerUpdate == 0",
        "spec.training.problemsPerUpdate: does not divide problemsPerStep; use a divisor of it",
    ),
    Rule(
        "spec",
        f"{_RANKS} <= self.training.problemsPerUpdate * ({is_one_of(SUPERVISED)} ? 1 : {PROBLEM_ROLLOUTS})",
        "spec.trainer.replicas: makes more ranks than an update has rollouts (problemsPerUpdate times rounds times "
        "rolloutsPerRound) or, with strategies sft and sft_then_grpo, solutions (problemsPerUpdate); use fewer replicas or "
        "processesPerReplica",
    ),
)

_DEEPSPEED = (
    Rule(
        "spec",
        "self.trainer.deepspeed.offloadOptimizer != 'cpu' || self.trainer.deepspeed.zeroStage != 0",
        "spec.trainer.deepspeed: `offloadOptimizer: cpu` needs `zeroStage` 1, 2 or 3, and it is 0",
    ),
    Rule(
        "spec",
        "self.trainer.deepspeed.offloadParameters != 'cpu' || self.trainer.deepspeed.zeroStage == 3",
        "spec.trainer.deepspeed: `offloadParameters: cpu` needs `zeroStage: 3`, and it is not",
    ),
)
