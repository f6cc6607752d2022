# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
"""The options of DeepSpeed that a run may set, and those that Seele sets itself."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import model_validator

from seele_trainer.frozen_model import FrozenModel

OFFLOADED_OPTIMIZER = "`offloadOptimizer: cpu` needs `zeroStage` 1, 2 or 3"
OFFLOADED_PARAMETERS = "`offloadParameters: cpu` needs `zeroStage: 3`"

_BATCH = "remove it: training.problemsPerUpdate and training.tokensPerMicroBatch determine batches"

RESERVED_OVERRIDES: Mapping[str, str] = {
    **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu"), _BATCH),
    **dict.fromkeys(("gradient_accumulation_steps", "managed_gradient_accumulation"), _BATCH),
    **dict.fromkeys(
        ("prescale_gradients", "gradient_predivide_factor"), "remove it: global token counts scale the loss"
    ),
    "gradient_clipping": "set training.maxGradientNorm",
    "optimizer": "set training.learningRate, training.adamBetas and training.weightDecay",
    "scheduler": "set training.learningRateSchedule and training.warmupUpdates",
    "zero_optimization.stage": "set trainer.deepspeed.zeroStage",
    "zero_optimization.offload_optimizer.device": "set trainer.deepspeed.offloadOptimizer",
    "zero_optimization.offload_param.device": "set trainer.deepspeed.offloadParameters",
    **dict.fromkeys(("fp16.enabled", "bf16.enabled", "torch_autocast.enabled"), "set model.dtype"),
}
"""Keys of DeepSpeed's configuration that Seele sets itself, each with what to do instead."""


class DeepSpeed(FrozenModel):
    """Options of DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: what is partitioned across ranks (1: optimizer state, 2: also gradients, 3: also parameters)."""
    offload_optimizer: Literal["none", "cpu"] = "none"
    """Keep optimizer state in host memory. Needs ZeRO stage 1 or higher."""
    offload_parameters: Literal["none", "cpu"] = "none"
    """Keep parameters in host memory. Needs ZeRO stage 3."""
    overrides: dict[str, Any] = {}
    """Additional keys to merge into DeepSpeed's JSON configuration. Keys that Seele sets itself are refused."""

    @model_validator(mode="after")
    def _compatible(self) -> "DeepSpeed":
        if self.offload_optimizer == "cpu" and self.zero_stage == 0:
            raise ValueError(f"{OFFLOADED_OPTIMIZER}, and it is 0")
        if self.offload_parameters == "cpu" and self.zero_stage != 3:
            raise ValueError(f"{OFFLOADED_PARAMETERS}, and it is {self.zero_stage}")
        return self

    def reserved_overrides(self) -> dict[str, str]:
        """The part of `RESERVED_OVERRIDES` that `overrides` sets."""
        return {key: RESERVED_OVERRIDES[key] for key in _dotted(self.overrides) if key in RESERVED_OVERRIDES}


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in settings.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
