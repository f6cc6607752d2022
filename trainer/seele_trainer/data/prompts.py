"""Turn a question into the token ids that a completion, or a hint, goes on from."""

from __future__ import annotations

from typing import Literal

from transformers import PreTrainedTokenizerBase

from seele_trainer.data.problem import BadTokenizerError

Template = Literal["r1-zero", "chat", "plain"]

R1_ZERO = (
    "Below, a user gives an assistant a problem. The assistant first reasons about it step by step, "
    "and then gives the final answer inside \\boxed{{}}.\n\nUser: {question}\n\nAssistant:\n"
)
"""In the spirit of DeepSeek-R1-Zero's template (arXiv 2501.12948, Table 1): plain text, for any base model."""

INSTRUCTION = "Reason step by step, and give the final answer inside \\boxed{}."
"""Follows the question in the chat template, whose other words belong to the model."""


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, template: Template) -> tuple[int, ...]:
    """Token ids of the prompt for a question, with the beginning-of-sequence token where the tokenizer adds one.

    Raises BadTokenizerError for `chat` with a tokenizer that has no chat template.
    """
    match template:
        case "r1-zero":
            return _encode(tokenizer, R1_ZERO.format(question=question))
        case "plain":
            return _encode(tokenizer, question + "\n")
        case "chat":
            return _encode_chat(tokenizer, question)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    # Some tokenizers close a text with a separator or end token; a prompt must stay open, so only the first is taken
    # over.
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    begins = tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id]
    return (*whole[:1], *tokens) if begins and tokens[:1] != whole[:1] else tuple(tokens)


def _encode_chat(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[int, ...]:
    if not getattr(tokenizer, "chat_template", None):
        raise BadTokenizerError(
            "dataset.promptTemplate is chat, and the model's tokenizer has no chat template: "
            "use r1-zero for a base model"
        )
    messages = [{"role": "user", "content": f"{question}\n{INSTRUCTION}"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # The template writes its own special tokens, the first one included.
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
