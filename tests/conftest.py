"""Fixtures of several folders: real data, and tokenizers trained on it."""

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests.support import REPOSITORY
from tests.support.parallel import GroupScheduling, rank_of

# The duration of an example depends more on the load of the machine than on the code.
settings.register_profile("seele", deadline=None)
settings.load_profile("seele")


PUNCTUATION_WITH_LINE_BREAKS = r"""\p{L}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\p{N}| ?\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+"""
"""Pieces as in recent models' tokenizers: single digits, and `.\\n` may be one token."""


def pytest_configure() -> None:
    """Let Ctrl-C reach child processes: shells ignore it for background commands, which children would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder: unit, integration or e2e. With several workers, start the longest tests first."""
    for item in items:
        item.add_marker(item.path.relative_to(REPOSITORY / "tests").parts[0])
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: rank_of(item.path.relative_to(REPOSITORY / "tests")))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """How `-n` distributes tests. (pytest-xdist 3.8 has groups, but does not find them with pytest 9.)"""
    return GroupScheduling(config, log)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with gsm8k/ and benchmarks/: SEELE_TEST_DATA, or ../shared/data next to the repository."""
    folder = Path(os.environ.get("SEELE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "gsm8k" / "train.jsonl").is_file():
        pytest.skip(f"no problem sets in {folder}: set SEELE_TEST_DATA to a folder with gsm8k/ and benchmarks/")
    return folder


@pytest.fixture(scope="session")
def gsm8k_tokenizer(shared_data: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 3,000 tokens trained on GSM8K, split into words as by GPT-2."""
    return train_bpe(gsm8k_texts(shared_data), pre_tokenizers.ByteLevel(add_prefix_space=False))


@pytest.fixture(scope="session")
def merging_tokenizer(shared_data: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE trained on GSM8K in which punctuation and the line break after it can be one token."""
    split = pre_tokenizers.Split(Regex(PUNCTUATION_WITH_LINE_BREAKS), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return train_bpe(gsm8k_texts(shared_data), pre_tokenizers.Sequence([split, byte_level]))


def gsm8k_texts(shared_data: Path) -> list[str]:
    with (shared_data / "gsm8k" / "train.jsonl").open() as lines:
        rows = [json.loads(line) for line in lines]
    return [f"{row['question']}\n{row['answer']}" for row in rows[:3000]]


def train_bpe(texts: Iterable[str], pieces: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>", clean_up_tokenization_spaces=False
    )
