"""Tiny random language models, saved as Hugging Face folders."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

VOCABULARY = 64
EOS = 1


def save_llama(
    folder: Path, *, seed: int, tied: bool = False, dtype: torch.dtype = torch.float32, **changes: Any
) -> LlamaForCausalLM:
    """A Llama of two layers and 64 tokens, with weights large enough for predictions that differ from chance."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=256,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        bos_token_id=2,
        eos_token_id=EOS,
        pad_token_id=0,
    )
    config.update(changes)
    model = LlamaForCausalLM(config).to(dtype)
    model.save_pretrained(folder)
    return model.eval()


def small_qwen2(seed: int, **changes: Any) -> Qwen2ForCausalLM:
    """A Qwen2 of two layers and 64 tokens, with the weights that transformers draws; its predictions are near chance."""
    torch.manual_seed(seed)
    config = Qwen2Config(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    config.update({"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, **changes})
    return Qwen2ForCausalLM(config)


def save_tokenizer(folder: Path, **options: str) -> None:
    """A tokenizer whose 64 words are w0, w1, …; `options` name its special tokens."""
    words = Tokenizer(WordLevel({f"w{index}": index for index in range(VOCABULARY)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words, **options).save_pretrained(folder)


@torch.inference_mode()
def logprobs_of(model: LlamaForCausalLM, tokens: tuple[int, ...]) -> tuple[float, ...]:
    """The model's own log-probabilities of a sequence, one shorter than the sequence."""
    ids = torch.tensor([tokens])
    table = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
    return tuple(table.gather(1, ids[0, 1:, None])[:, 0].tolist())
