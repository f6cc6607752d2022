"""DeepSpeed's JSON configuration, derived from the run's."""

import math
from collections.abc import Mapping
from typing import Any

from seele_trainer.config import TrainerConfig, Training

_MAX_BUCKET = 500_000_000


def engine_config(config: TrainerConfig, *, parameters: int, pin_memory: bool) -> dict[str, Any]:
    """Configuration of the engine that trains.

    `parameters` is the size of the model: communication buffers are never larger than that. Raises ValueError naming
    each key of `trainer.deepspeed.overrides` that Seele sets itself.
    """
    training, options = config.training, config.trainer.deepspeed
    if reserved := options.reserved_overrides():
        lines = (f"trainer.deepspeed.overrides.{key}: is set by Seele itself; {what}" for key, what in reserved.items())
        raise ValueError("\n".join(lines))
    own: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "optimizer": {
            "type": "AdamW",
            # torch's AdamW, because DeepSpeed's would have to be compiled in the pod.
            "params": {
                "lr": training.learning_rate,
                "betas": list(training.adam_betas),
                "weight_decay": training.weight_decay,
                "torch_adam": True,
                # On a CPU the other implementations use one thread and take ten times as long.
                **({"fused": True} if options.offload_optimizer == "cpu" else {}),
            },
        },
        "zero_optimization": _zero(config, parameters, pin_memory),
        **_precision(config),
    }
    if not clips_itself(config):
        own["gradient_clipping"] = training.max_gradient_norm
    return _quiet(_merged(own, options.overrides))


def reference_config(config: TrainerConfig, *, parameters: int, pin_memory: bool) -> dict[str, Any]:
    """Configuration of a frozen model that is partitioned over ranks (ZeRO 3, no optimizer)."""
    zero = _zero(config, parameters, pin_memory)
    zero.pop("offload_optimizer", None)
    return _quiet({"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero, **_precision(config)})


def clips_itself(config: TrainerConfig) -> bool:
    """Whether the learner clips gradients: without ZeRO, DeepSpeed does not report the unclipped norm."""
    return config.trainer.deepspeed.zero_stage == 0 and config.model.dtype != "float16"


def _zero(config: TrainerConfig, parameters: int, pin_memory: bool) -> dict[str, Any]:
    options = config.trainer.deepspeed
    # DeepSpeed allocates whole buckets, of half a billion elements by default.
    bucket = min(_MAX_BUCKET, max(parameters, 1))
    zero: dict[str, Any] = {"stage": options.zero_stage, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    if options.offload_optimizer == "cpu":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": pin_memory}
    if options.offload_parameters == "cpu":
        zero["offload_param"] = {"device": "cpu", "pin_memory": pin_memory}
    return zero


def _precision(config: TrainerConfig) -> dict[str, Any]:
    """Forward pass in the model's dtype, with float32 master weights and float32 sums of gradients."""
    stage = config.trainer.deepspeed.zero_stage
    if config.model.dtype == "bfloat16":
        # Without ZeRO DeepSpeed would sum gradients in bfloat16; autocast keeps weights and gradients in float32.
        if stage == 0:
            return {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}}
        return {"bf16": {"enabled": True}, "data_types": {"grad_accum_dtype": "fp32"}}
    if config.model.dtype == "float16":
        return {"fp16": {"enabled": True}}
    return {}


def _quiet(config: dict[str, Any]) -> dict[str, Any]:
    return {"steps_per_print": None, "wall_clock_breakdown": False, **config}


def _merged(own: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(own)
    for key, value in overrides.items():
        mine = merged.get(key)
        merged[key] = _merged(mine, value) if isinstance(mine, Mapping) and isinstance(value, Mapping) else value
    return merged


def learning_rate(training: Training, update: int, total_updates: int) -> float:
    """Learning rate of update number `update`, counted from 0.

    The two phases of sft_then_grpo are scheduled like two runs: each has its own peak, warm-up and schedule.
    """
    if training.strategy != "sft_then_grpo":
        return _scheduled(training, training.learning_rate, update, total_updates)
    supervised = training.sft_steps * training.updates_per_step
    if update < supervised:
        peak = training.sft_then_grpo.sft_learning_rate or training.learning_rate
        return _scheduled(training, peak, update, supervised)
    return _scheduled(training, training.learning_rate, update - supervised, total_updates - supervised)


def _scheduled(training: Training, peak: float, update: int, total_updates: int) -> float:
    """Learning rate of one phase.

    It rises linearly to the peak at the last of `warmup_updates`, then follows the schedule down to
    `final_learning_rate_ratio` times the peak at the last of `total_updates`.
    """
    warmup = training.warmup_updates
    if update < warmup:
        return peak * (update + 1) / warmup
    progress = min(1.0, (update - warmup) / max(1, total_updates - 1 - warmup))
    falling = {
        "constant": 1.0,
        "linear": 1.0 - progress,
        "cosine": 0.5 * (1.0 + math.cos(math.pi * progress)),
    }[training.learning_rate_schedule]
    final = 1.0 if training.learning_rate_schedule == "constant" else training.final_learning_rate_ratio
    return peak * (final + (1.0 - final) * falling)
