"""Prompts are the question in its template, open at the end."""

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from seele_trainer.data.problem import BadTokenizerError
from seele_trainer.data.prompts import R1_ZERO, Template, encode_prompts, stop_strings


def with_bos_and_eos(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A copy that puts <s> before every text and the end token after it."""
    copy = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>", bos_token="<s>"
    )
    bos, eos = copy.bos_token_id, copy.eos_token_id
    copy.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A <|endoftext|>", special_tokens=[("<s>", bos), ("<|endoftext|>", eos)]
    )
    return copy


def test_the_r1_zero_prompt_holds_the_question_and_asks_for_a_boxed_answer(
    gsm8k_tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = gsm8k_tokenizer.decode(encode_prompts(gsm8k_tokenizer, ["What is {1} + 1?"], "r1-zero")[0])
    assert "\\boxed{}" in text
    assert text.endswith("User: What is {1} + 1?\n\nAssistant:\n")


def test_the_plain_prompt_is_the_question_and_a_line_break(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    (tokens,) = encode_prompts(gsm8k_tokenizer, ["Two plus two?"], "plain")
    assert gsm8k_tokenizer.decode(tokens) == "Two plus two?\n"


@pytest.mark.parametrize("template", ["plain", "r1-zero"])
def test_a_beginning_token_is_kept_and_an_end_token_is_not(
    gsm8k_tokenizer: PreTrainedTokenizerFast, template: str
) -> None:
    tokenizer = with_bos_and_eos(gsm8k_tokenizer)
    assert tokenizer("x")["input_ids"][-1] == tokenizer.eos_token_id
    (tokens,) = encode_prompts(tokenizer, ["Two plus two?"], template)  # type: ignore[arg-type]
    assert tokens[0] == tokenizer.bos_token_id
    assert tokenizer.eos_token_id not in tokens
    assert tokens.count(tokenizer.bos_token_id) == 1


def test_the_chat_prompt_is_the_tokenizers_own_template(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    tokenizer = with_bos_and_eos(gsm8k_tokenizer)
    tokenizer.chat_template = "<s>{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[assistant]"
    (tokens,) = encode_prompts(tokenizer, ["Two plus two?"], "chat")
    text = tokenizer.decode(tokens)
    assert "[user] Two plus two?\n" in text
    assert text.endswith("[assistant]")
    assert tokens.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize(
    ("template", "stop", "strings"),
    [
        ("r1-zero", None, ("\nUser:",)),
        ("plain", None, ()),
        ("chat", None, ()),
        ("r1-zero", (), ()),
        ("plain", ("\nProblem:",), ("\nProblem:",)),
    ],
)
def test_a_completion_ends_by_default_where_the_template_would_ask_the_next_question(
    template: Template, stop: tuple[str, ...] | None, strings: tuple[str, ...]
) -> None:
    assert stop_strings(template, stop) == strings
    assert all(string in R1_ZERO for string in stop_strings("r1-zero", None))


def test_a_tokenizer_without_chat_template_is_refused(gsm8k_tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(BadTokenizerError, match=r"no chat template: use r1-zero"):
        encode_prompts(gsm8k_tokenizer, ["?"], "chat")
