"""Rules about training: batches, rollouts, hints, the schedule, and DeepSpeed's own settings."""

from collections.abc import Callable, Iterator
from operator import attrgetter

from pydantic.alias_generators import to_snake

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.api.types import yaml_path
from seele_operator.validation.rules.rule import Rule, Rules, Values, strategy_is, when
from seele_trainer.deepspeed_options import OFFLOADED_OPTIMIZER, OFFLOADED_PARAMETERS

RULES = Rules()

_ROLLOUTS = "self.hints.rounds * self.hints.rolloutsPerRound"

_ADAPTS = strategy_is(lambda method: method.adapts_hints)

_BY_ROUND = "self.training.advantageGroup == 'round'"


@RULES.add(
    "spec.training.problemsPerUpdate",
    "[{training.problems_per_update} ]does not divide problemsPerStep[, which is {training.problems_per_step}]; "
    "use a divisor of it[, such as {divisor}]",
    "self.training.problemsPerStep % self.training.problemsPerUpdate == 0",
)
def _whole_updates(spec: SeeleRunSpec) -> Iterator[Values]:
    step, update = spec.training.problems_per_step, spec.training.problems_per_update
    if step % update:
        yield {"divisor": max(size for size in range(1, min(step, update) + 1) if step % size == 0)}


@RULES.add(
    "spec.trainer.replicas",
    "[{trainer.replicas} times processesPerReplica {trainer.processes_per_replica} makes {trainer.world_size} ranks, and "
    "an update has only {sequences} {what}; use at most {sequences} ranks|"
    "makes more ranks than an update has rollouts (problemsPerUpdate times rounds times rolloutsPerRound) or, with "
    "strategies sft and sft_then_grpo, solutions (problemsPerUpdate); use fewer replicas or processesPerReplica]",
    "self.trainer.replicas * self.trainer.processesPerReplica <= self.training.problemsPerUpdate * "
    f"({strategy_is(lambda method: method.supervised)} ? 1 : {_ROLLOUTS})",
)
def _a_sequence_per_rank(spec: SeeleRunSpec) -> Iterator[Values]:
    sequences, what = spec.training.problems_per_update, "solutions (problemsPerUpdate)"
    if not spec.training.method.supervised:
        sequences *= spec.hints.rounds * spec.hints.rollouts_per_round
        what = "rollouts (problemsPerUpdate times rounds times rolloutsPerRound)"
    if sequences < spec.trainer.world_size:
        yield {"sequences": sequences, "what": what}


@RULES.add(
    "spec.hints.rolloutsPerRound",
    "[{hints.rollouts_per_round} in {rounds} ]leaves nothing to compare a rollout with, so its advantage is zero; use at least "
    "[{least} rollouts per problem{why}|2 rollouts per problem, or 3 with prefix_rft, one of which has a prefix]",
    f"{_ROLLOUTS} >= ({strategy_is(lambda method: not method.samples)} ? 0 : "
    f"{strategy_is(lambda method: method.min_rollouts == 3)} ? 3 : 2)",
)
def _comparable(spec: SeeleRunSpec) -> Iterator[Values]:
    rounds, least = spec.hints.rounds, spec.training.method.min_rollouts
    if rounds * spec.hints.rollouts_per_round < least:
        yield {
            "rounds": "1 round" if rounds == 1 else f"{rounds} rounds",
            "least": least,
            "why": ", one of which has a prefix" if least == 3 else "",
        }


RULES += [
    Rule(
        "spec.hints.rolloutsPerRound",
        "[{hints.rollouts_per_round} ]leaves each round without a baseline, so every advantage is zero; "
        "use at least 2, or training.advantageGroup: problem",
        f"!({_ADAPTS} && {_BY_ROUND} && {_ROLLOUTS} >= 2) || self.hints.rolloutsPerRound >= 2",
        check=when(
            lambda spec: (
                spec.training.method.adapts_hints
                and spec.training.advantage_group == "round"
                and spec.hints.rollouts_per_round == 1 < spec.hints.rounds
            )
        ),
    ),
    Rule(
        "spec.hints.rounds",
        "[{hints.rounds} ]is too few for strategy seele, which fits a curve to earlier rounds; "
        "use at least 2, such as 4",
        f"!({_ADAPTS}) || self.hints.rounds >= 2",
        check=when(lambda spec: spec.training.method.adapts_hints and spec.hints.rounds < 2),
    ),
]


# Unhinted rollouts need at least two for a baseline. Each round keeps a hinted one, or two if it has its own baseline.
_UNHINTED = f"(self.hints.unhintedShare * double({_ROLLOUTS}))"

_MAX_UNHINTED = f"(self.hints.rounds * (self.hints.rolloutsPerRound - ({_BY_ROUND} ? 2 : 1)))"

_NONE_UNHINTED = f"!({_ADAPTS}) || self.hints.unhintedShare == 0.0"


def _unhinted(message: str, cel: str, broken: Callable[[int, int], bool]) -> Rule:
    """A rule about the number of unhinted rollouts and the largest number that is possible."""

    def check(spec: SeeleRunSpec) -> Iterator[Values]:
        share, total = spec.hints.unhinted_share, spec.hints.rounds * spec.hints.rollouts_per_round
        unhinted = round(share * total)
        most = total - spec.hints.rounds * (2 if spec.training.advantage_group == "round" else 1)
        if spec.training.method.adapts_hints and share > 0 and broken(unhinted, most):
            yield {"total": total, "unhinted": unhinted, "lowest": 2 / total, "highest": most / total}

    start = "[{hints.unhinted_share:g} of {total} rollouts is {unhinted} without a hint, which ]"
    return Rule("spec.hints.unhintedShare", start + message, f"{_NONE_UNHINTED} || {cel}", check=check)


# Python rounds a half to the even number: 1.5 up to 2, and a half above an even highest number down.
RULES += [
    _unhinted(
        "is too few rollouts for a baseline of their own; use 0, or [at least {lowest:g}|more]",
        f"{_UNHINTED} >= 1.5 || {_MAX_UNHINTED} < 2",
        lambda unhinted, most: unhinted < 2 <= most,
    ),
    _unhinted(
        "leaves too few hinted rollouts in each round; use [at most {highest:g}|0, or less]",
        f"{_MAX_UNHINTED} < 2 || {_UNHINTED} < double({_MAX_UNHINTED}) + 0.5 || "
        f"({_UNHINTED} == double({_MAX_UNHINTED}) + 0.5 && {_MAX_UNHINTED} % 2 == 0)",
        lambda unhinted, most: 2 <= most < unhinted,
    ),
    _unhinted(
        "is more than rounds with so few rollouts can spare; use 0, or raise rolloutsPerRound",
        f"{_MAX_UNHINTED} >= 2",
        lambda unhinted, most: most < 2,
    ),
]


_UPDATES_PER_STEP = (
    "(self.training.problemsPerStep < self.training.problemsPerUpdate ? 1 : "
    "self.training.problemsPerStep / self.training.problemsPerUpdate)"
)

_UPDATES = f"self.training.steps * {_UPDATES_PER_STEP}"

_SFT_THEN_GRPO = "self.training.strategy == 'sft_then_grpo'"

# The number of supervised steps before rounding down, because old and new servers round differently.
_SFT_STEPS = "(self.training.sftThenGrpo.sftShare * double(self.training.steps) + 0.000000001)"

_WARMUP_STEPS = f"(self.training.warmupUpdates / {_UPDATES_PER_STEP})"


@RULES.add(
    "spec.training.warmupUpdates",
    "[{training.warmup_updates} ]is not below the run's [{updates} ]updates (steps times problemsPerStep by "
    "problemsPerUpdate); use fewer[, such as {suggested}]",
    f"self.training.warmupUpdates < {_UPDATES}",
)
def _warmup(spec: SeeleRunSpec) -> Iterator[Values]:
    warmup, updates = spec.training.warmup_updates, spec.training.steps * spec.training.updates_per_step
    if warmup >= updates:
        yield {"updates": updates, "suggested": updates // 20}


@RULES.add(
    "spec.training.warmupUpdates",
    "[{training.warmup_updates} ]is not below the [{updates} ]updates of the shorter phase of sft_then_grpo, each of "
    "which has its own warm-up; use fewer[, such as {suggested}]",
    f"!({_SFT_THEN_GRPO}) || {_SFT_STEPS} < 1.0 || self.training.warmupUpdates >= {_UPDATES} || "
    f"({_SFT_STEPS} >= double({_WARMUP_STEPS} + 1) && {_SFT_STEPS} < double(self.training.steps - {_WARMUP_STEPS}))",
)
def _warmup_of_a_phase(spec: SeeleRunSpec) -> Iterator[Values]:
    training = spec.training
    warmup, updates = training.warmup_updates, training.steps * training.updates_per_step
    supervised = training.sft_steps * training.updates_per_step
    shorter = min(supervised, updates - supervised)
    if training.strategy == "sft_then_grpo" and supervised and shorter <= warmup < updates:
        yield {"updates": shorter, "suggested": shorter // 20}


RULES.append(
    Rule(
        "spec.training.sftThenGrpo.sftShare",
        "[{training.sft_then_grpo.sft_share:g} of {training.steps} steps ]is less than one step of supervised "
        "fine-tuning; use more, or strategy grpo",
        f"!({_SFT_THEN_GRPO}) || {_SFT_STEPS} >= 1.0",
        check=when(lambda spec: spec.training.strategy == "sft_then_grpo" and spec.training.sft_steps < 1),
    )
)


def _prefix_bound(field: str) -> Rule:
    bound, longest = f"training.prefix_rft.{to_snake(field)}", "training.prefix_rft.longest_prefix"
    return Rule(
        f"spec.training.prefixRft.{field}",
        f"[{{{bound}:g}} ]is above longestPrefix[, which is {{{longest}:g}}]; use at most that",
        f"self.training.prefixRft.{field} <= self.training.prefixRft.longestPrefix",
        check=when(lambda spec: attrgetter(bound)(spec) > attrgetter(longest)(spec)),
    )


RULES += [_prefix_bound(field) for field in ("firstLowerBound", "lastLowerBound")]

# The models check these two in Python.
RULES += [
    Rule(
        "spec.trainer.deepspeed",
        OFFLOADED_OPTIMIZER,
        "self.trainer.deepspeed.offloadOptimizer != 'cpu' || self.trainer.deepspeed.zeroStage != 0",
    ),
    Rule(
        "spec.trainer.deepspeed",
        OFFLOADED_PARAMETERS,
        "self.trainer.deepspeed.offloadParameters != 'cpu' || self.trainer.deepspeed.zeroStage == 3",
    ),
]


@RULES.add("{field}", "is set by Seele itself; {remedy}")
def _reserved_overrides(spec: SeeleRunSpec) -> Iterator[Values]:
    for key, remedy in spec.trainer.deepspeed.reserved_overrides().items():
        yield {"field": yaml_path(("spec", "trainer", "deepspeed", "overrides", *key.split("."))), "remedy": remedy}
