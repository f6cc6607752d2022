"""Training methods, one short file each. To add one, write its file and name it here and in `config.Training.strategy`."""

from __future__ import annotations

from collections.abc import Callable

from seele_trainer.config import TrainerConfig
from seele_trainer.strategies.base import Strategy
from seele_trainer.strategies.grpo import Grpo
from seele_trainer.strategies.seele import Seele

STRATEGIES: dict[str, Callable[[TrainerConfig], Strategy]] = {"grpo": Grpo, "seele": Seele}


def build_strategy(config: TrainerConfig) -> Strategy:
    """The strategy that the run's configuration names."""
    return STRATEGIES[config.training.strategy](config)
