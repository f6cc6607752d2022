"""Training methods, one short file each; docs/choosing-a-method.md shows how to add one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import get_args

from seele_trainer.config import TrainerConfig
from seele_trainer.methods import StrategyName
from seele_trainer.strategies.base import Strategy


def _strategy_class(name: str) -> Callable[[TrainerConfig], Strategy]:
    strategy: Callable[[TrainerConfig], Strategy] = getattr(
        import_module(f"{__name__}.{name}"), name.title().replace("_", "")
    )
    return strategy


STRATEGIES = {name: _strategy_class(name) for name in get_args(StrategyName)}
"""The class of each method: `sft_then_grpo` is `SftThenGrpo` in strategies/sft_then_grpo.py."""


def build_strategy(config: TrainerConfig) -> Strategy:
    """The strategy that the run's configuration names."""
    return STRATEGIES[config.training.strategy](config)
