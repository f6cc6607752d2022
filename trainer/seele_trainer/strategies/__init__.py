"""Training methods, one short file each; docs/choosing-a-method.md shows how to add one."""

from collections.abc import Callable, Mapping

from seele_trainer.config import TrainerConfig
from seele_trainer.methods import StrategyName
from seele_trainer.strategies.base import Strategy
from seele_trainer.strategies.fixed_hint import FixedHint
from seele_trainer.strategies.grpo import Grpo
from seele_trainer.strategies.luffy import Luffy
from seele_trainer.strategies.prefix_rft import PrefixRft
from seele_trainer.strategies.seele import Seele
from seele_trainer.strategies.sft import Sft
from seele_trainer.strategies.sft_then_grpo import SftThenGrpo
from seele_trainer.strategies.uft import Uft

STRATEGIES: Mapping[StrategyName, Callable[[TrainerConfig], Strategy]] = {
    "seele": Seele,
    "grpo": Grpo,
    "sft": Sft,
    "sft_then_grpo": SftThenGrpo,
    "uft": Uft,
    "prefix_rft": PrefixRft,
    "luffy": Luffy,
    "fixed_hint": FixedHint,
}


def build_strategy(config: TrainerConfig) -> Strategy:
    """The strategy that the run's configuration names."""
    return STRATEGIES[config.training.strategy](config)
