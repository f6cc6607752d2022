"""One problem, its rollouts and a run's configuration, for tests of strategies."""

from collections.abc import Sequence

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import Problem, TokenizedProblem
from seele_trainer.rollout.protocol import Completion
from seele_trainer.strategies.base import Rollout, Strategy

PROBLEM = TokenizedProblem(
    problem=Problem(id="p", question="q", solution="s", answer="7"),
    prompt=(1, 2, 3),
    solution=(10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20),
    revealable=10,
    step_ends=(2, 5, 9),
)


def config(strategy: str = "seele", training: dict[str, object] | None = None, **hints: object) -> TrainerConfig:
    """Three rounds of four rollouts; `training` and `hints` change these sections."""
    return TrainerConfig.model_validate(
        {
            "name": "test",
            "model": {"name": "m"},
            "dataset": {"path": "d.jsonl"},
            "training": {"strategy": strategy, **(training or {})},
            "hints": {"rounds": 3, "rollouts_per_round": 4, **hints},
        }
    )


def rollout(round_number: int, reward: float | None, hint_length: int = 0, tokens: Sequence[int] = (30, 31)) -> Rollout:
    return Rollout(
        problem=PROBLEM,
        round=round_number,
        hint_length=hint_length,
        rate=PROBLEM.rate_of(hint_length, "token"),
        completion=Completion(tuple(tokens), tuple(-0.5 for _ in tokens), "stop", 0),
        reward=reward,
    )


def play(strategy: Strategy, reward: float) -> list[Rollout]:
    """All rollouts of one problem in a step, every one with the same reward."""
    done: list[Rollout] = []
    while (plan := strategy.next_round(PROBLEM, done)) is not None:
        rollouts = [rollout(plan.round, reward, plan.hint_length) for _ in range(plan.rollouts)]
        strategy.observe(PROBLEM, rollouts)
        done += rollouts
    return done
