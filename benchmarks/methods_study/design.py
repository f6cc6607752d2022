"""What the study trains: the settings of each part, the candidate learning rates, and the runs that follow from them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from seele_trainer.methods import METHODS, StrategyName
from tests.support.spec_data import patched

Part: TypeAlias = Literal["methods", "unsupervised", "targets", "estimators", "options", "rounds", "supervision"]
PARTS: tuple[Part, ...] = get_args(Part)
STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)

HINTED: tuple[StrategyName, ...] = ("seele", "uft", "fixed_hint")
"""Methods that learn hints by cross-entropy, which the part `unsupervised` turns off."""
TARGETS = (0.25, 0.375, 0.5, 0.625, 0.75)
ROUNDS = ((2, 16), (4, 8), (8, 4), (4, 6), (4, 4))
"""Rounds m and rollouts per round n: three ways to spend 32 rollouts, then smaller budgets for four rounds."""
OPTIONS: dict[str, Mapping[str, Any]] = {
    "the defaults": {},
    "hints end at steps": {"hints": {"unit": "step"}},
    "a quarter unhinted": {"hints": {"unhintedShare": 0.25}},
    "baseline by round": {"training": {"advantageGroup": "round"}},
}
SUPERVISION: dict[str, Mapping[str, Any]] = {
    "all": {},
    "none": {"hints": {"supervision": "none"}},
    "high-entropy": {"hints": {"supervision": "high-entropy"}},
    "not-below-baseline": {"hints": {"supervision": "not-below-baseline"}},
}
PASSES = 3
"""Passes over the problems in the part `estimators`: what an estimator remembers shows from the second pass."""


@dataclass(frozen=True)
class Setting:
    """A method with its options, repeated on every seed. `changes` apply to the quickstart's spec."""

    name: str
    strategy: StrategyName
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Scale:
    """How much is trained. Every method has the same budget per run: steps x problems x rollouts, and about the same number
    of tokens in its loss, apart from what `sft_then_grpo` imitates first."""

    steps: int = 40
    seeds: int = 3
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    problems_per_step: int = 16
    rollouts_per_problem: int = 32
    tiny: bool = False


TINY = Scale(steps=2, seeds=1, learning_rates=(3e-4,), problems_per_step=4, rollouts_per_problem=8, tiny=True)
"""Just enough to see that the script works."""


@dataclass(frozen=True)
class Planned:
    """One training; two with the same spec are the same run."""

    setting: Setting
    seed: int
    learning_rate: float

    def changes(self, scale: Scale) -> dict[str, Any]:
        """All changes to the quickstart's spec."""
        training = {
            "strategy": self.setting.strategy,
            "seed": self.seed,
            "learningRate": self.learning_rate,
            "steps": scale.steps,
            "problemsPerStep": scale.problems_per_step,
            "problemsPerUpdate": scale.problems_per_step,
        }
        return patched(patched({"training": training}, _tiny() if scale.tiny else {}), self.setting.changes)


def settings(part: Part, scale: Scale) -> list[Setting]:
    """The settings of one part, in the order of its table."""
    if part == "methods":
        return [method(strategy, scale) for strategy in STRATEGIES]
    if part == "unsupervised":
        without = patched(_budget(scale), {"hints": {"supervision": "none"}})
        return [Setting(f"{strategy}, hints not learnt", strategy, without) for strategy in HINTED]
    if part == "targets":
        return [_seele(f"target {target:g}", {"hints": {"targetAccuracy": target}}, scale) for target in TARGETS]
    if part == "rounds":
        return [
            _seele(f"{m} × {n}", {"hints": {"rounds": m, "rolloutsPerRound": n}}, scale) for m, n in rounds_of(scale)
        ]
    if part == "estimators":
        limit = {"dataset": {"limit": scale.problems_per_step * steps_of_pass(scale)}}
        names = ("shared-ability", "paper")
        return [_seele(name, patched({"hints": {"estimator": name}}, limit), scale) for name in names]
    options = OPTIONS if part == "options" else SUPERVISION
    return [_seele(name, changes, scale) for name, changes in options.items()]


def method(strategy: StrategyName, scale: Scale) -> Setting:
    """A method as in the table of methods.

    A method without rollouts gets as many solutions per update as the others get rollouts, so that all make the same number of
    updates from the same number of sequences. A method that imitates first does so in additional steps.
    """
    changes: dict[str, Any] = _budget(scale)
    if not METHODS[strategy].samples:
        solutions = scale.problems_per_step * scale.rollouts_per_problem
        changes = patched(changes, {"training": {"problemsPerStep": solutions, "problemsPerUpdate": solutions}})
    elif METHODS[strategy].supervised:
        # Imitation does not replace any steps: it uses only one solution per problem.
        imitation = max(1, scale.steps // 4)
        steps = scale.steps + imitation
        changes = patched(changes, {"training": {"steps": steps, "sftThenGrpo": {"sftShare": imitation / steps}}})
    return Setting(strategy, strategy, changes)


def rounds_of(scale: Scale) -> list[tuple[int, int]]:
    """Rounds and rollouts a round; a tiny study has a quarter of the rollouts."""
    return [(m, n * scale.rollouts_per_problem // 32) for m, n in ROUNDS]


def steps_of_pass(scale: Scale) -> int:
    """Steps of one pass over the problems in the part `estimators`."""
    return max(1, scale.steps // PASSES)


def strategies_of(parts: Iterable[Part]) -> list[StrategyName]:
    """Methods that the parts train; all parts but the first two train only SEELE."""
    if "methods" in parts:
        return list(STRATEGIES)
    return list(HINTED) if "unsupervised" in parts else ["seele"]


def grid(strategies: Sequence[StrategyName], scale: Scale) -> list[Planned]:
    """The runs on the first seed that choose each method's learning rate; none if there is only one candidate."""
    if len(scale.learning_rates) < 2:
        return []
    return [Planned(method(strategy, scale), 0, rate) for strategy in strategies for rate in scale.learning_rates]


def repeated(part: Part, scale: Scale, rates: Mapping[StrategyName, float]) -> list[Planned]:
    """All runs of a part, every setting on every seed at its method's learning rate."""
    return [
        Planned(setting, seed, rates[setting.strategy])
        for setting in settings(part, scale)
        for seed in range(scale.seeds)
    ]


def best_rate(validation: Mapping[float, float]) -> float:
    """The learning rate with the highest validation accuracy; the lowest of several, which is the safest."""
    return max(sorted(validation), key=lambda rate: validation[rate])


def _seele(name: str, changes: Mapping[str, Any], scale: Scale) -> Setting:
    return Setting(name, "seele", patched(_budget(scale), changes))


def _budget(scale: Scale) -> dict[str, Any]:
    return {"hints": {"rounds": 4, "rolloutsPerRound": scale.rollouts_per_problem // 4}}


def _tiny() -> dict[str, Any]:
    return {
        "rollout": {"engine": "transformers"},
        "hints": {"unhintedProbes": 2},
        "checkpoints": {"everySteps": 1},
        "observability": {"tensorboard": False},
    }
