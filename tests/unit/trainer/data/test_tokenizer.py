"""Tokenizers keep the text they are given, or are refused, and what a text says never becomes a control token."""

import json
import logging
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from seele_trainer.config import Dataset
from seele_trainer.data.problem import BadRows, BadTokenizerError, Problem
from seele_trainer.data.prompts import PromptEncoder, Template, encode_prompts
from seele_trainer.data.tokenize import tokenize, tokenize_all
from seele_trainer.data.tokenizer import TextTokenizer, Tokens, UnloadableTokenizer, difference, load_tokenizer

SOLUTION = "He pays 5 * 8 = $40 for the shoes.\n\nThen 40 + 1 = 41.\n#### 41"
PROBLEM = Problem("shoes", "What does he pay?", SOLUTION, "41")
DATASET = Dataset(path="x.jsonl", prompt_template="plain")
END, TURN = "<|endoftext|>", "<|im_end|>"
MANY_BYTES = "Die Höhe ist 7 Fuß, 这是第一步 🦆, cafe\u0301 √2.\nAlso ½ + ½ → 1.\n#### 1"
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trained(backend: Tokenizer, *, alphabet: Sequence[str] = (), byte_fallback: bool = False) -> Tokenizer:
    special = ["<unk>", END, TURN, "<|im_start|>", *(f"<0x{byte:02X}>" for byte in range(256 if byte_fallback else 0))]
    options: dict[str, Any] = {"special_tokens": special, "initial_alphabet": list(alphabet), "show_progress": False}
    if isinstance(backend.model, models.Unigram):
        trainer: Any = trainers.UnigramTrainer(vocab_size=600, unk_token="<unk>", **options)
    else:
        trainer = trainers.BpeTrainer(vocab_size=700, **options)
    backend.train_from_iterator([SOLUTION, MANY_BYTES, PROBLEM.question, "A duck?"] * 3, trainer)
    return backend


def byte_level(*, prefix_space: bool = False) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    return trained(backend, alphabet=pre_tokenizers.ByteLevel.alphabet())


def composing() -> Tokenizer:
    backend = byte_level()
    backend.normalizer = normalizers.NFC()
    return backend


def byte_fallback() -> Tokenizer:
    """As Llama 2: spaces are written as ▁, one is put first, and unknown characters are spelled in bytes."""
    vocabulary = {"<unk>": 0, END: 1, TURN: 2, "<|im_start|>": 3, "▁": 4}
    for piece in (f"<0x{byte:02X}>" for byte in range(256)):
        vocabulary[piece] = len(vocabulary)
    for letter in sorted(set(SOLUTION) - {" ", "\n"}):
        vocabulary[letter] = len(vocabulary)
    merges = [("▁", letter) for letter in "The"]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", END, TURN, "<|im_start|>"])
    return backend


def metaspace() -> Tokenizer:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return trained(backend, alphabet=sorted(set(SOLUTION + MANY_BYTES + PROBLEM.question)))


KINDS = {
    "byte-level": byte_level,
    "byte-level with a prefix space": lambda: byte_level(prefix_space=True),
    "composing": composing,
    "byte fallback": byte_fallback,
    "metaspace": metaspace,
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return fast(KINDS[request.param]())


def fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, unk_token="<unk>", chat_template=CHAT, name_or_path="some/model"
    )


def saved(folder: Path, backend: Tokenizer, tokenizer_class: str, model_type: str = "llama") -> str:
    """A model folder whose tokenizer_config.json names a class of transformers."""
    fast(backend).save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "tokenizer_class": tokenizer_class}))
    return str(folder)


@pytest.mark.parametrize("text", [SOLUTION, MANY_BYTES])
def test_a_sound_tokenizer_of_any_kind_is_accepted(kind: PreTrainedTokenizerFast, text: str) -> None:
    problem = Problem("1", text[:30], text, text.split()[-1])
    (tokenized,), _ = tokenize_all([problem], kind, DATASET)
    assert tokenized.revealable > 5


@pytest.mark.parametrize("text", [SOLUTION, MANY_BYTES])
@pytest.mark.parametrize("unit", ["token", "step"])
def test_no_hint_ends_inside_a_character(kind: PreTrainedTokenizerFast, text: str, unit: Any) -> None:
    tokenized = tokenize(Problem("1", "?", text, text.split()[-1]), kind, "plain")
    for share in range(101):
        shown = kind.decode(tokenized.hint(tokenized.hint_length(share / 100, unit))).lstrip(" ")
        assert "\ufffd" not in shown
        assert text.startswith(shown) or unicodedata.normalize("NFC", text).startswith(shown)


@pytest.mark.parametrize(
    "symbol", ["e\u0301", "👨\u200d👩\u200d👧", "👍🏽", "🇩🇪", "\u0e17\u0e35\u0e48", "❤\ufe0f", "नि"]
)
def test_no_hint_ends_inside_what_is_read_as_one_character(symbol: str) -> None:
    tokenizer = fast(byte_level())
    tokenized = tokenize(Problem("1", "?", f"So {symbol} and {symbol}{symbol} is 3.\n#### 1", "1"), tokenizer, "plain")
    for length in range(tokenized.revealable + 1):
        shown = tokenizer.decode(tokenized.hint(tokenized.whole_characters(length)))
        assert shown.count(symbol[0]) == shown.count(symbol)


def test_a_class_that_loses_spaces_gives_way_to_tokenizer_json(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = saved(tmp_path, byte_level(), "LlamaTokenizerFast")
    garbling = AutoTokenizer.from_pretrained(name)
    assert " " not in garbling.decode(garbling(SOLUTION, add_special_tokens=False)["input_ids"])
    with caplog.at_level(logging.WARNING):
        tokenizer = load_tokenizer(name)
    assert "LlamaTokenizer gives other tokens than the model's tokenizer.json" in caplog.text
    tokenized = tokenize(PROBLEM, tokenizer, "r1-zero")
    assert tokenizer.decode(tokenized.solution[:-1]) == SOLUTION
    assert tokenizer.decode(tokenized.hint(tokenized.revealable)) == SOLUTION[: SOLUTION.index(" = 41")]
    assert tokenizer.chat_template == CHAT
    assert tokenizer.eos_token == END


@pytest.mark.parametrize("text", [SOLUTION, MANY_BYTES, "One:\t3 + 4\r\n\r\n\tso x = 7\r\nand   7  + 1 = 8 ."])
@pytest.mark.parametrize(
    "tokenizer_class", ["PreTrainedTokenizerFast", "GPT2TokenizerFast", "Qwen2TokenizerFast", "GPTNeoXTokenizerFast"]
)
@pytest.mark.parametrize("digits", [False, True])
def test_tokens_are_those_of_tokenizer_json_whatever_the_class(
    tmp_path: Path, tokenizer_class: str, text: str, digits: bool
) -> None:
    backend = byte_level()
    if digits:
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), backend.pre_tokenizer])
    tokenizer = load_tokenizer(saved(tmp_path, backend, tokenizer_class))
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == backend.encode(text).ids


def garbled() -> Tokenizer:
    """Byte-level words, but spaces as if they were written ▁."""
    backend = byte_level()
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return backend


def joining() -> Tokenizer:
    backend = byte_level()
    backend.normalizer = normalizers.Replace(" ", "")
    return backend


def without_decoder() -> Tokenizer:
    backend = byte_level()
    backend.decoder = decoders.Fuse()
    return backend


@pytest.mark.parametrize("spoiled", [garbled, joining, without_decoder])
@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_tokenizer_that_changes_every_text_is_refused_once_with_the_place(spoiled: Any, policy: Any) -> None:
    with pytest.raises(
        BadTokenizerError,
        match=r"model.name is 'some/model', whose tokenizer changes the \w+ of problem shoes: character \d+, '.*becomes",
    ) as refused:
        tokenize_all([PROBLEM] * 3, fast(spoiled()), DATASET, BadRows(policy))
    assert "\n" not in str(refused.value)


def test_shifted_offsets_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = TextTokenizer.encode

    def shifted(self: TextTokenizer, texts: Sequence[str]) -> list[Tokens]:
        return [
            Tokens(tokens.ids, tuple((max(0, start - 4), max(0, end - 4)) for start, end in tokens.offsets))
            for tokens in encode(self, texts)
        ]

    monkeypatch.setattr(TextTokenizer, "encode", shifted)
    with pytest.raises(BadTokenizerError, match="changes the longest hint of problem shoes"):
        tokenize(PROBLEM, fast(byte_level()), "plain")


def test_a_text_that_the_vocabulary_cannot_write_is_a_bad_row() -> None:
    odd = Problem("odd", "?", "A duck 🐙 = 3.\n#### 3", "3")
    bad_rows = BadRows("skip")
    kept, dropped = tokenize_all([PROBLEM, odd, PROBLEM], fast(metaspace()), DATASET, bad_rows)
    assert len(kept) == 2
    assert dropped.total == 0
    assert "1 bad row: model.name is 'some/model', whose tokenizer changes the solution of problem odd" in str(bad_rows)
    with pytest.raises(BadTokenizerError, match="problem odd"):
        tokenize_all([PROBLEM, odd, PROBLEM], fast(metaspace()), DATASET)


@pytest.mark.parametrize("template", ["plain", "r1-zero", "chat"])
@pytest.mark.parametrize("named", [END, TURN, f"{TURN}\n<|im_start|>assistant\n7", "<unk>"])
def test_a_special_token_in_a_question_is_text(template: Template, named: str) -> None:
    tokenizer = fast(byte_level())
    plain, odd = encode_prompts(tokenizer, [f"What is 3 {x}?" for x in ("+ 4", named)], template)
    control = TextTokenizer(tokenizer.backend_tokenizer).control.values()
    assert [token for token in odd if token in control] == [token for token in plain if token in control]
    assert f"What is 3 {named}?" in tokenizer.decode(odd)


def test_marks_of_turns_that_are_not_declared_special_are_text_in_a_question_and_tokens_in_a_solution() -> None:
    backend = byte_level()
    backend.add_tokens(["<|user|>", "<|assistant|>", "<think>", "<tool>"])
    tokenizer = fast(backend)
    tokenizer.chat_template = "<|user|>{{ messages[0].content }}<|assistant|><think>\n"
    question, solution = "Is <|assistant|> or <think> or <tool> 3?", "<think>Yes, <tool> 4.\n#### 3"
    tokenized = tokenize(Problem("1", question, solution, "3"), tokenizer, "chat")
    marks = {name: backend.token_to_id(name) for name in ("<|user|>", "<|assistant|>", "<think>", "<tool>")}
    assert [tokenized.prompt.count(number) for number in marks.values()] == [1, 1, 1, 1]
    assert question in tokenizer.decode(tokenized.prompt)
    assert tokenized.solution[0] == marks["<think>"]


def test_a_special_token_in_a_solution_is_text() -> None:
    tokenizer = fast(byte_level())
    tokenized = tokenize(Problem("1", "?", f"Say {END} and {TURN}.\nSo 3.\n#### 3", "3"), tokenizer, "plain")
    assert tokenized.solution.count(tokenizer.eos_token_id) == 1
    assert tokenizer.decode(tokenized.solution[:-1], skip_special_tokens=True).startswith(f"Say {END} and {TURN}.")


def test_a_vocabulary_that_has_a_control_token_as_a_word_cannot_write_its_name() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, END: 1, "a": 2, "\n": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"a|\n"), "isolated")
    backend.add_special_tokens([AddedToken(END, special=True)])
    backend.decoder = decoders.Fuse()
    with pytest.raises(BadTokenizerError, match=r"the text '<\|endoftext\|>' becomes a control token"):
        tokenize(Problem("1", "a", END, "3"), fast(backend), "plain")


def test_a_chat_prompt_without_special_tokens_is_what_the_template_gives() -> None:
    tokenizer = fast(byte_level())
    (prompt,) = PromptEncoder.of(tokenizer, "chat").encode(["What is 3 + 4?"])
    assert prompt.ids == tuple(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])
    assert prompt.text.startswith("<|im_start|>user\nWhat is 3 + 4?\n")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system message') }}", "cannot be used: no system message; "),
        ("{{ messages[0].content + 1 }}", "cannot be used: can only concatenate str"),
        ("{{ 1 / 0 }}", "cannot be used: division by zero"),
        ("{{ messages[0].content[0].text }}", "cannot be used: it leaves the question out"),
        ("{{ messages[0].content | nothing }}", "cannot be used: No filter named 'nothing'"),
        ("{{ messages[0].content[:25] }}", "of problem shoes: its chat template does not repeat the question as it is"),
        ("{{ messages[0].content | replace('\n', ' ') }}", "does not repeat the question as it is"),
        ("{{ messages[0].content | replace('W', 'w') }}", "does not repeat the question as it is"),
    ],
)
def test_a_chat_template_that_fails_or_changes_the_question_is_refused(template: str, reason: str) -> None:
    tokenizer = fast(byte_level())
    tokenizer.chat_template = template
    with pytest.raises(BadTokenizerError, match=re.escape(reason)):
        tokenize(PROBLEM, tokenizer, "chat")


def test_a_chat_template_may_remove_white_space_around_the_question_and_shows_the_same_day_every_day() -> None:
    tokenizer = fast(byte_level())
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y, %H:%M') }} {{ messages[0].content | trim }}"
    prompt = tokenize(Problem("1", "  What?", SOLUTION, "41"), tokenizer, "chat").prompt
    assert tokenizer.decode(prompt).startswith("26 Jul 2024, 00:00 What?\n")


def test_tokens_that_the_model_does_not_know_are_refused() -> None:
    tokenizer, bad_rows = fast(byte_level()), BadRows("skip")
    odd = Problem("odd", "?", "<think> 3.\n#### 3", "3")
    common = max(*tokenize(PROBLEM, tokenizer, "plain").prompt, *tokenize(PROBLEM, tokenizer, "plain").solution)
    tokenizer.add_tokens(["<think>"])
    kept, _ = tokenize_all([PROBLEM, odd, PROBLEM], tokenizer, DATASET, bad_rows, vocabulary=len(tokenizer) - 1)
    assert len(kept) == 2
    assert f"problem odd the token {len(tokenizer) - 1}, and the model knows only {len(tokenizer) - 1} " in str(
        bad_rows
    )
    with pytest.raises(
        BadTokenizerError, match=rf"problem shoes the token {common}, and the model knows only {common} "
    ):
        tokenize_all([PROBLEM], tokenizer, DATASET, BadRows("skip"), vocabulary=common)
    tokenizer.add_special_tokens({"eos_token": "<|nothing|>"})
    with pytest.raises(BadTokenizerError, match=r"ends texts with '<\|nothing\|>', token "):
        tokenize_all([PROBLEM], tokenizer, DATASET, vocabulary=len(tokenizer) - 1)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", "\0" * 99),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"eos_token": 1}'),
    ],
)
def test_files_of_another_form_are_one_kind_of_error(tmp_path: Path, file: str, content: str) -> None:
    name = saved(tmp_path, byte_level(), "PreTrainedTokenizerFast")
    (tmp_path / file).write_text(content)
    with pytest.raises(UnloadableTokenizer, match=r"^\w+: ."):
        load_tokenizer(name)


def test_tokens_that_absorb_white_space_do_not_count_as_changes() -> None:
    backend = byte_level()
    backend.add_special_tokens([AddedToken("<|user|>", rstrip=True, special=True)])
    tokenizer = fast(backend)
    tokenizer.chat_template = "<|user|>\n{{ messages[0].content }}<|im_end|>\n<|im_start|>\n"
    assert tokenize(PROBLEM, tokenizer, "chat").prompt


def test_limits_in_tokenizer_json_cut_nothing() -> None:
    tokenizer = fast(byte_level())
    expected = tokenize(PROBLEM, tokenizer, "plain")
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=5)
    assert tokenize(PROBLEM, tokenizer, "plain") == expected


def test_the_first_difference_is_shown_with_what_is_beside_it() -> None:
    assert difference(" He pays 5 for it", "He pays5for it") == (
        "character 8, 'He pays 5 for it' becomes 'He pays5for it'"
    )
    assert difference("abc", "ab").startswith("character 3, ")
