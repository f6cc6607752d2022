"""The model's tokenizer: loaded as its tokenizer.json says, read as text only, and checked on texts.

Imports neither transformers nor tokenizers before they are needed, so that `seele validate` can use it.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

PROBES = (
    "He pays 5 dollars for the shoes.\nThat makes 12 + 0.5 = 12.5 in all.\n\n#### 12.5",
    "  Let $x^2 - 3x = \\frac{1}{2}$, so\n\tx_1 < 0 , and f( x ) doesn't exist . ",
    "für 3 Äpfel: 1234567 €, cafe\u0301 – 这是第 2 步 🦆\r\n\tand   7\t+ 1\r\n\r\nI'LL snake_case(x2)",
)
"""Texts with single, repeated and odd spaces, line breaks, digits, LaTeX and letters of several scripts, for comparing two
ways to load a tokenizer."""

_SHRINKING = 4
"""Most characters that a normalisation turns into one; Unicode's composition joins up to three."""
_BESIDE = 12
"""Characters shown before and after the first difference of two texts."""


class UnloadableTokenizer(ValueError):
    """The files of a tokenizer are missing, broken, or not those of a tokenizer."""


def load_tokenizer(
    name: str, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder or ID. Raises UnloadableTokenizer, or OSError if a disk or hub fails.

    Some classes of transformers 5 rebuild a tokenizer from its vocabulary with their own idea of spaces: LlamaTokenizer
    over a byte-level tokenizer.json loses them all (transformers#45488). Where a class gives other tokens than the file,
    the file is used as it is, as transformers 4 did, unless it loses more of the text.
    """
    try:
        return _load_tokenizer(name, revision, trust_remote_code)
    except OSError:
        raise
    except Exception as error:  # the libraries raise anything, down to a bare Exception, for files of another form
        reason = " ".join(str(error).split()) or "no reason given"
        raise UnloadableTokenizer(f"{type(error).__name__}: {reason}") from error


def _load_tokenizer(name: str, revision: str | None, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.utils.hub import cached_file

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        name, revision=revision, trust_remote_code=trust_remote_code
    )
    if not tokenizer.is_fast:
        return tokenizer
    file = cached_file(name, "tokenizer.json", revision=revision, _raise_exceptions_for_missing_entries=False)
    if file is None:
        return tokenizer
    by_class, by_file = TextTokenizer(tokenizer.backend_tokenizer), TextTokenizer(Tokenizer.from_file(file))
    if by_class.read(PROBES) == by_file.read(PROBES) or by_file.losses(PROBES) > by_class.losses(PROBES):
        return tokenizer
    logger.warning(
        "model.name is %r: %s gives other tokens than the model's tokenizer.json, which is used as it is",
        name,
        type(tokenizer).__name__,
    )
    as_it_is: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(name, revision=revision or "main")
    return as_it_is


@dataclass(frozen=True)
class Tokens:
    """Token ids of a text, and the half-open range of characters that each stands for."""

    ids: tuple[int, ...]
    offsets: Sequence[tuple[int, int]]


class TextTokenizer:
    """A tokenizer that reads all of a text as text: `<|im_end|>` in a problem is ten characters, not the end of a turn."""

    def __init__(self, backend: Tokenizer) -> None:
        self.backend = backend
        # Settings of tokenizer.json that would truncate long texts and pad short ones.
        backend.no_truncation()
        backend.no_padding()

    def encode(self, texts: Sequence[str]) -> list[Tokens]:
        """The tokens of each text, with neither a beginning nor an end token."""
        with self._special_as_text(True):
            encodings = self.backend.encode_batch(list(texts), add_special_tokens=False)
        return [Tokens(self._shared(encoding.ids), encoding.offsets) for encoding in encodings]

    def encode_ids(self, texts: Sequence[str], *, markup: bool) -> list[tuple[int, ...]]:
        """Token ids alone, in less time. With `markup`, special tokens are control tokens, as in a chat template."""
        with self._special_as_text(not markup):
            encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [self._shared(encoding.ids) for encoding in encodings]

    def decode(self, sequences: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence, with its special tokens."""
        return self.backend.decode_batch([list(ids) for ids in sequences], skip_special_tokens=False)

    def text(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of one sequence, with its special tokens or without, exactly as the model wrote it.

        A tokenizer of transformers may clean spaces up.
        """
        return self.backend.decode(list(ids), skip_special_tokens=not special)

    def same(self, text: str, decoded: str) -> bool:
        """Whether `decoded` is `text`, up to leading spaces and to the tokenizer's own normalisation.

        Normalisation may change characters, but a tokenizer that joins words loses text.
        """
        if decoded.lstrip(" ") == text.lstrip(" "):
            return True
        if self.backend.normalizer is None or len(decoded.split()) < len(text.split()):
            return False
        return self._normalised(decoded) == self._normalised(text)

    def read(self, texts: Sequence[str]) -> list[tuple[Tokens, str]]:
        """The tokens of each text, and the text that they stand for."""
        encoded = self.encode(texts)
        return list(zip(encoded, self.decode([tokens.ids for tokens in encoded]), strict=True))

    def change(self, text: str, ids: Sequence[int], decoded: str) -> str | None:
        """How the tokens of a text fail to be that text, in words; None if they are."""
        if not self.same(text, decoded):
            return difference(text, decoded)
        name = self._control_in(ids)
        return None if name is None else f"the text {name!r} becomes a control token"

    def losses(self, texts: Sequence[str]) -> int:
        """How many of the texts are not the same after encoding and decoding."""
        return sum(not self.same(text, back) for text, (_, back) in zip(texts, self.read(texts), strict=True))

    @cached_property
    def control(self) -> Mapping[str, int]:
        """The special tokens with their ids, which no text may contain as tokens."""
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    def with_special(self, markup: str) -> TextTokenizer:
        """This tokenizer, or a copy for which all added tokens in `markup` are special, if some are not."""
        added = self.backend.get_added_tokens_decoder().values()
        names = {token.content for token in added if not token.special and token.content in markup}
        if not names:
            return self
        described = json.loads(self.backend.to_str())
        for token in described["added_tokens"]:
            token["special"] |= token["content"] in names
        return TextTokenizer(type(self.backend).from_str(json.dumps(described)))

    @cached_property
    def control_pattern(self) -> re.Pattern[str] | None:
        """Matches a special token (group 1) with the white space beside it; None without special tokens."""
        names = sorted(self.control, key=len, reverse=True)
        return re.compile(rf"\s*({'|'.join(map(re.escape, names))})\s*") if names else None

    def surely_longer(self, text: str, tokens: int) -> bool:
        """Whether a text has more than so many tokens, whatever they are: known from its length alone."""
        return len(text) > tokens * self._longest * (1 if self.backend.normalizer is None else _SHRINKING)

    @cached_property
    def _longest(self) -> int:
        # In byte-level vocabularies each byte is one character, so a token never stands for more of them than it has.
        return max(map(len, self.backend.get_vocab()), default=1)

    @cached_property
    def _numbers(self) -> list[int]:
        return list(range(max(self.backend.get_vocab().values(), default=0) + 1))

    def _control_in(self, ids: Sequence[int]) -> str | None:
        # `encode` cannot prevent it where the vocabulary has the token's name as an ordinary word.
        if self._control_numbers.isdisjoint(ids):
            return None
        return next(name for name, number in self.control.items() if number in ids)

    @cached_property
    def _control_numbers(self) -> frozenset[int]:
        return frozenset(self.control.values())

    @contextmanager
    def _special_as_text(self, yes: bool) -> Iterator[None]:
        self.backend.encode_special_tokens = yes
        try:
            yield
        finally:
            self.backend.encode_special_tokens = False

    def _shared(self, ids: list[int]) -> tuple[int, ...]:
        # Equal numbers are one object: 8 bytes a token instead of 36, which is gigabytes in 100,000 problems.
        return tuple(map(self._numbers.__getitem__, ids))

    def _normalised(self, text: str) -> str:
        return str(self.backend.normalizer.normalize_str(text)).replace("▁", " ").lstrip(" ")


def difference(text: str, decoded: str) -> str:
    """Where two texts begin to differ, as `character 8, "pays 5 for" becomes "pays5for"`."""
    text, decoded = text.lstrip(" "), decoded.lstrip(" ")
    pairs = enumerate(zip(text, decoded, strict=False))
    first = next((index for index, (one, other) in pairs if one != other), min(len(text), len(decoded)))
    start = max(0, first - _BESIDE)
    return f"character {first + 1}, {_around(text, start)} becomes {_around(decoded, start)}"


def _around(text: str, start: int) -> str:
    return repr(re.sub(r"[\ud800-\udfff]", "\ufffd", text[start : start + 2 * _BESIDE]))
