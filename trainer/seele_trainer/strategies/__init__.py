"""Training methods, one short file each. The registry is `method_options.StrategyName`; docs/choosing-a-method.md adds one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from seele_trainer.config import TrainerConfig
from seele_trainer.methods import StrategyName
from seele_trainer.strategies.base import Strategy


def strategy_class(name: StrategyName) -> Callable[[TrainerConfig], Strategy]:
    """The class of a method, by its name: `sft_then_grpo` is `SftThenGrpo` of strategies/sft_then_grpo.py."""
    module = import_module(f"{__name__}.{name}")
    return cast("Callable[[TrainerConfig], Strategy]", getattr(module, name.title().replace("_", "")))


def build_strategy(config: TrainerConfig) -> Strategy:
    """The strategy that the run's configuration names."""
    return strategy_class(config.training.strategy)(config)
