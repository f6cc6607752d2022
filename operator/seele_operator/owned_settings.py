"""Keys of DeepSpeed's configuration that a run may not override, each with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

_BATCH = "remove it: batches follow from training.problemsPerUpdate and training.tokensPerMicroBatch"
_PRECISION = "set model.dtype"

OWNED_BY_SEELE: Mapping[tuple[str, ...], str] = {
    ("train_batch_size",): _BATCH,
    ("train_micro_batch_size_per_gpu",): _BATCH,
    ("gradient_accumulation_steps",): _BATCH,
    ("managed_gradient_accumulation",): _BATCH,
    ("prescale_gradients",): "remove it: the loss is scaled by global token counts already",
    ("gradient_predivide_factor",): "remove it: the loss is scaled by global token counts already",
    ("gradient_clipping",): "set training.maxGradientNorm",
    ("optimizer",): "set training.learningRate, training.adamBetas and training.weightDecay",
    ("scheduler",): "set training.learningRateSchedule and training.warmupUpdates",
    ("zero_optimization", "stage"): "set trainer.deepspeed.zeroStage",
    ("zero_optimization", "offload_optimizer", "device"): "set trainer.deepspeed.offloadOptimizer",
    ("zero_optimization", "offload_param", "device"): "set trainer.deepspeed.offloadParameters",
    ("fp16", "enabled"): _PRECISION,
    ("bf16", "enabled"): _PRECISION,
    ("torch_autocast", "enabled"): _PRECISION,
}
"""By path of keys. The learner draws its own batches, sets the learning rate and scales the loss."""
