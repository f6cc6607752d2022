"""Simulated training runs for judging hint controllers: populations of problems whose true curves are known.

A world gives the model's accuracy on a problem at a moment of training for a hint of some length. `run` trains in it with a
controller, and reports how close the accuracy was kept to its target.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from seele_trainer.hints.controller import EstimatorName, HintController
from seele_trainer.hints.irt import Floats, sigmoid

Bools: TypeAlias = NDArray[np.bool_]
# (elapsed share of the run, problem, rate) -> true accuracy; (problem, rate) -> the nearest rate that a hint can have.
Accuracy: TypeAlias = Callable[[float, int, float], float]
Realise: TypeAlias = Callable[[int, float], float]


@dataclass(frozen=True)
class World:
    """A population of problems, and the schedule of a run over it."""

    name: str
    problems: int
    accuracy: Accuracy
    realise: Realise = lambda problem, rate: rate
    problems_per_step: int = 20
    passes: int = 4
    rounds: int = 4
    rollouts: int = 8
    target: float = 0.5
    lost: float = 0.0
    """Share of rollouts that are lost."""

    @property
    def steps(self) -> int:
        """Training steps in the whole run."""
        return self.passes * (self.problems // self.problems_per_step)


@dataclass(frozen=True)
class Outcome:
    """How well a controller did, by true accuracies a, without sampling noise.

    `efficiency` is the mean of 4a(1-a) over everything. The other fields count only problems that need a hint to reach the
    target, and can. Over the last half of the steps with such problems: `by_round` is their mean accuracy in each round,
    `reward_error` the distance of the mean of all rounds from the target, `late_error` that of rounds from the third on. From
    the second pass on (NaN without one): `first_accuracy` is the mean accuracy of first rounds, `first_efficiency` their mean
    4a(1-a).
    """

    efficiency: float
    by_round: tuple[float, ...]
    reward_error: float
    late_error: float
    first_accuracy: float
    first_efficiency: float


def run(world: World, estimator: EstimatorName, seed: int = 0) -> Outcome:
    """Train a simulated model in a world, with hints chosen by one of the controller's estimators."""
    random = np.random.default_rng(seed)
    controller = HintController(world.target, world.rounds, world.rollouts, estimator=estimator)
    order: list[int] = []
    accuracies = np.empty((world.steps, world.problems_per_step, world.rounds))
    needed = np.zeros((world.steps, world.problems_per_step), dtype=np.bool_)
    for step in range(world.steps):
        if len(order) < world.problems_per_step:
            order = [int(problem) for problem in random.permutation(world.problems)]
        batch, order = order[: world.problems_per_step], order[world.problems_per_step :]
        moment = step / max(1, world.steps - 1)
        for round_ in range(world.rounds):
            for slot in random.permutation(len(batch)):
                problem = batch[slot]
                rate = world.realise(problem, controller.propose(str(problem)))
                accuracy = world.accuracy(moment, problem, rate)
                trials = int(random.binomial(world.rollouts, 1.0 - world.lost))
                controller.observe(str(problem), rate, int(random.binomial(trials, accuracy)), trials)
                accuracies[step, slot, round_] = accuracy
        needed[step] = [_needs_hint(world, moment, problem) for problem in batch]
        controller.end_step()
    return _outcome(world, accuracies, needed)


def attainable(world: World, moments: int = 20, problems: int = 40) -> float:
    """Mean 4a(1-a) at the best possible rates, as if every curve were known; over a sample of problems and moments."""
    best = [
        max(
            4.0 * a * (1.0 - a)
            for a in (world.accuracy(moment, problem, world.realise(problem, rate)) for rate in np.linspace(0, 1, 101))
        )
        for moment in (np.arange(moments) + 0.5) / moments
        for problem in range(problems)
    ]
    return float(np.mean(best))


def _needs_hint(world: World, moment: float, problem: int) -> bool:
    longest = max(world.accuracy(moment, problem, rate) for rate in (0.9, 0.95, 1.0))
    return world.accuracy(moment, problem, 0.0) < world.target < longest


def _outcome(world: World, accuracies: Floats, needed: Bools) -> Outcome:
    """From accuracies (steps, problems per step, rounds) and which problems needed a hint (steps, problems per step)."""
    busy = np.flatnonzero(needed.mean(axis=1) > 0.25)
    late = busy[len(busy) // 2 :]
    by_round = accuracies[late][needed[late]].mean(axis=0)
    second_pass = world.steps // world.passes
    first = accuracies[second_pass:, :, 0][needed[second_pass:]]
    return Outcome(
        efficiency=_efficiency(accuracies),
        by_round=tuple(by_round.tolist()),
        reward_error=abs(float(by_round.mean()) - world.target),
        late_error=abs(float(by_round[2:].mean()) - world.target),
        first_accuracy=float(first.mean()) if first.size else np.nan,
        first_efficiency=_efficiency(first) if first.size else np.nan,
    )


def _efficiency(accuracies: Floats) -> float:
    return float((4.0 * accuracies * (1.0 - accuracies)).mean())


@dataclass(frozen=True)
class _Problems:
    """Parameters of logistic problems: 50 % points when training starts, k and b, each of shape (problems,)."""

    threshold: Floats
    discrimination: Floats
    guessing: Floats


def _problems(random: np.random.Generator, count: int, mean: float = 0.85, spread: float = 0.15) -> _Problems:
    guesses = random.random(count) < 0.3
    return _Problems(
        threshold=random.normal(mean, spread, count),
        discrimination=np.clip(np.exp(random.normal(np.log(10.0), 0.5, count)), 3.0, 50.0),
        guessing=np.where(guesses, random.uniform(0.0, 0.25, count), 0.0),
    )


def _logistic(problems: _Problems, ability: Callable[[float], float]) -> Accuracy:
    def accuracy(moment: float, problem: int, rate: float) -> float:
        threshold = problems.threshold[problem] - ability(moment)
        b = problems.guessing[problem]
        return float(b + (1 - b) * sigmoid(problems.discrimination[problem] * (rate - threshold)))

    return accuracy


def _to_grid(points: int) -> Realise:
    return lambda problem, rate: round(rate * points) / points


def easier(seed: int = 0, target: float = 0.5) -> World:
    """300 logistic problems that get steadily easier, 4 passes."""
    problems = _problems(np.random.default_rng(seed), 300)
    return World("getting easier", 300, _logistic(problems, lambda moment: 0.55 * moment), target=target)


def falling(seed: int = 0) -> World:
    """Ability rises, jumps down, and falls slowly."""
    problems = _problems(np.random.default_rng(seed), 300)

    def ability(moment: float) -> float:
        return 0.9 * moment if moment < 0.5 else 0.25 - 0.3 * (moment - 0.5)

    return World("falls and jumps", 300, _logistic(problems, ability))


def uneven(seed: int = 0) -> World:
    """Some problems gain five times as much as others from what the model learns."""
    random = np.random.default_rng(seed)
    problems, pace = _problems(random, 300), random.uniform(0.2, 1.0, 300)

    def accuracy(moment: float, problem: int, rate: float) -> float:
        return _logistic(problems, lambda moment: 0.9 * pace[problem] * moment)(moment, problem, rate)

    return World("uneven progress", 300, accuracy)


def two_kinds(seed: int = 0) -> World:
    """Half of the problems need long hints and have steep curves, half need short ones and have flat curves."""
    random = np.random.default_rng(seed)
    hard, easy = _problems(random, 150, 1.0, 0.08), _problems(random, 150, 0.45, 0.08)
    problems = _Problems(
        np.column_stack([hard.threshold, easy.threshold]).ravel(),
        np.column_stack([hard.discrimination * 1.6, easy.discrimination * 0.8]).ravel(),
        np.column_stack([hard.guessing, easy.guessing]).ravel(),
    )
    return World("two kinds", 300, _logistic(problems, lambda moment: 0.35 * moment))


def odd_curves(seed: int = 0) -> World:
    """Curves that are neither logistic nor monotone: a piecewise line, with a dip at a different place for each problem."""
    random = np.random.default_rng(seed)
    start = random.normal(0.7, 0.15, 300)
    width, dip, at = random.uniform(0.1, 0.6, 300), random.uniform(0.0, 0.35, 300), random.uniform(0.0, 1.0, 300)

    def accuracy(moment: float, problem: int, rate: float) -> float:
        rise = (rate - (start[problem] - 0.45 * moment)) / width[problem] + 0.5
        fall = dip[problem] * np.exp(-(((rate - at[problem]) / 0.06) ** 2))
        return float(np.clip(np.clip(rise, 0.02, 0.98) - fall, 0.0, 1.0))

    return World("odd curves", 300, accuracy)


def token_jumps(seed: int = 0) -> World:
    """Accuracy jumps from about 0.1 to 0.9 within one token of twenty to sixty."""
    random = np.random.default_rng(seed)
    threshold, tokens = random.normal(0.8, 0.15, 300), random.integers(20, 60, 300)
    low, high = random.uniform(0.02, 0.2, 300), random.uniform(0.8, 0.98, 300)

    def accuracy(moment: float, problem: int, rate: float) -> float:
        return float(high[problem] if rate >= threshold[problem] - 0.5 * moment else low[problem])

    return World("token jumps", 300, accuracy, lambda problem, rate: round(rate * tokens[problem]) / tokens[problem])


def five_steps(seed: int = 0) -> World:
    """Hints are cut to fifths of the solution."""
    return replace(easier(seed), name="five steps", realise=_to_grid(5))


def lost_rollouts(seed: int = 0) -> World:
    """A third of the rollouts is lost."""
    return replace(easier(seed), name="lost rollouts", lost=0.33)


def low_ceiling(seed: int = 0) -> World:
    """Even the longest hint gives accuracies of only 0.45 to 0.8."""
    random = np.random.default_rng(seed)
    inner, top = easier(seed).accuracy, random.uniform(0.45, 0.8, 300)
    return replace(
        easier(seed),
        name="low ceiling",
        accuracy=lambda moment, problem, rate: top[problem] * inner(moment, problem, rate),
    )


def chains(seed: int = 0) -> World:
    """Chains of 6 to 8 steps, learned fast: q rises from 0.4 to 0.97, mostly within 60 steps of 16 problems."""
    random = np.random.default_rng(seed)
    world = World("chains", 1024, *_chains(random.integers(6, 9, 1024), lambda m: 0.4 + 0.57 * (1 - np.exp(-3.5 * m))))
    return replace(world, problems_per_step=16, passes=2)


def quickstart(seed: int = 0, target: float = 0.5) -> World:
    """The pace of the quickstart: chains of 7 or 8 steps, each seen once; q rises from 0.15 to 0.9 in 40 steps of 16."""
    random = np.random.default_rng(seed)
    world = World(
        "quickstart", 640, *_chains(random.integers(7, 9, 640), lambda m: 0.15 + 0.77 * (1 - np.exp(-3.0 * m)))
    )
    return replace(world, problems_per_step=16, passes=1, target=target)


def _chains(length: NDArray[np.int64], right: Callable[[float], float]) -> tuple[Accuracy, Realise]:
    """Chains of L steps, each right with probability q: with a hint of h whole steps, the accuracy is q^(L-h).

    A step has two tokens. The last step is never shown, so at first not even the longest hint reaches the target.
    """

    def accuracy(moment: float, problem: int, rate: float) -> float:
        shown = np.floor(rate * (length[problem] - 1) + 1e-9)
        return float(right(moment) ** (length[problem] - shown))

    def realise(problem: int, rate: float) -> float:
        tokens = 2 * int(length[problem] - 1)
        return round(rate * tokens) / tokens

    return accuracy, realise


def all_worlds(seed: int = 0) -> list[World]:
    """Every scenario of the benchmark."""
    targets = [replace(easier(seed, target), name=f"target {target}") for target in (0.25, 0.375, 0.625, 0.75)]
    worlds = (
        easier,
        falling,
        uneven,
        two_kinds,
        odd_curves,
        token_jumps,
        five_steps,
        lost_rollouts,
        low_ceiling,
        chains,
        quickstart,
    )
    return [*(world(seed) for world in worlds), *targets]
