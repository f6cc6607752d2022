"""The language model in the learner: token ids in, log-probabilities of chosen tokens out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from seele_trainer.config import Model
from seele_trainer.learner.loss import token_logprobs
from seele_trainer.rollout.transformers_engine import attention_for, configurations
from seele_trainer.weights.stored_tensors import HEAD

# Elements gathered at a time from a model that ZeRO 3 has partitioned over ranks.
_GATHERED_ELEMENTS = 1 << 27

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TokenScorer(nn.Module):
    """A causal language model that scores given tokens.

    Only positions that predict such a token reach the output head: its logits are the largest tensor of an update, and
    prompts and padding need none.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self._positions: Tensor | None = None
        # A hook on the head, so that whatever a model does to its logits afterwards still happens.
        model.get_output_embeddings().register_forward_pre_hook(self._keep_predicting)

    def forward(
        self, tokens: Tensor, positions: Tensor, temperature: Tensor | None, *, with_entropy: bool = False
    ) -> Tensor:
        """Float32 log-probabilities (positions,) of the tokens at `positions`.

        With `with_entropy` the result is (2, positions): the second row is the entropy of each prediction, without gradient.

        `tokens` is (rows, width), padded on the right; `positions` indexes it flattened, never a row's first token;
        `temperature` (positions,) divides the logits. There is no attention mask: attention is causal, so no token
        attends to the padding on its right, and position ids count from each row's start.
        """
        self._positions = positions - 1
        try:
            logits = self.model(input_ids=tokens, use_cache=False).logits
        finally:
            self._positions = None
        return token_logprobs(logits, tokens.flatten()[positions], temperature, with_entropy=with_entropy)

    def train(self, mode: bool = True) -> "TokenScorer":
        """As for any module, except that routers of experts add no noise in training mode either."""
        super().train(mode)
        for module in self.modules():
            # By the name of their option. Only its user leaves training mode, because others recompute activations in it.
            if any("jitter" in name for name in vars(module)):
                module.training = False
        return self

    def _keep_predicting(self, _head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if self._positions is None:
            return inputs
        hidden, *rest = inputs
        return (hidden.flatten(0, -2)[self._positions], *rest)


def load_scorer(model: Model, dtype: torch.dtype, *, gradient_checkpointing: bool = False) -> TokenScorer:
    """Load the model of a run from the hub or a folder, without dropout: a ratio compares two passes of the same model.

    Raises OSError (from transformers) if there is no such model.
    """
    origin: dict[str, Any] = {"revision": model.revision, "trust_remote_code": model.trust_remote_code}
    config = AutoConfig.from_pretrained(model.name, **origin)
    attention = {"attn_implementation": attention_for(config)}
    loaded = AutoModelForCausalLM.from_pretrained(model.name, config=config, dtype=dtype, **origin, **attention)
    _remove_dropout(loaded)
    if gradient_checkpointing:
        loaded.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return TokenScorer(loaded)


def _remove_dropout(model: nn.Module) -> None:
    """Set every rate of dropout to 0: in the configurations, and in modules, which may have copied or chosen their own."""
    for holder in (*configurations(model.config), *model.modules()):
        rates = [name for name, value in vars(holder).items() if "drop" in name and isinstance(value, float)]
        for name in rates:
            setattr(holder, name, 0.0)
        if isinstance(holder, nn.modules.dropout._DropoutNd):
            holder.p = 0.0


@contextmanager
def head_scaled(model: Any, scale: float, *, untie: bool) -> Iterator[None]:
    """Let a language model compute as if `stored_head`, as it is stored with or without `untie`, were multiplied by `scale`.

    The weights are not touched: what the head reads is scaled, and what a tied embedding returns.
    """
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    hooks = [head.register_forward_pre_hook(lambda _head, inputs: (inputs[0] * scale, *inputs[1:]))]
    if head.weight is embedding.weight and not untie:
        hooks.append(embedding.register_forward_hook(lambda _embedding, _inputs, output: output * scale))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def stored_head(model: Any, *, untie: bool) -> str:
    """Name of the output head's weights in an export: those of the embedding if the model is tied, unless it is untied."""
    head = model.get_output_embeddings().weight
    if untie and head is model.get_input_embeddings().weight:
        return HEAD
    names: Iterator[str] = (name for name, parameter in model.named_parameters() if parameter is head)
    return next(names)


def gathered_weights(model: nn.Module, dtype: torch.dtype, *, zero3: bool, keep: bool) -> dict[str, Tensor]:
    """Copies of all parameters in host memory, as `dtype`; an empty dict unless `keep` is set.

    Tied parameters appear once. Collective if ZeRO 3 has partitioned the model: all ranks call it, one keeps the result.
    """
    import deepspeed  # only now: it chooses its accelerator at import, from what `Ranks.join` sets

    weights: dict[str, Tensor] = {}
    for group in _groups(model):
        with deepspeed.zero.GatheredParameters(list(group.values()), enabled=zero3):
            if keep:
                weights |= {name: value.detach().to("cpu", dtype, copy=True) for name, value in group.items()}
    return weights


def _groups(model: nn.Module) -> Iterator[dict[str, nn.Parameter]]:
    """Split parameters into groups of bounded size, in order."""
    group: dict[str, nn.Parameter] = {}
    elements = 0
    for name, parameter in model.named_parameters():
        # A parameter that ZeRO 3 has partitioned is empty here, and has its true size in an attribute.
        size = getattr(parameter, "ds_numel", parameter.numel())
        if group and elements + size > _GATHERED_ELEMENTS:
            yield group
            group, elements = {}, 0
        group[name] = parameter
        elements += size
    yield group
