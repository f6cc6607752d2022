"""What can be wrong with the problems or with the tokenizer they are put through."""

from __future__ import annotations


class BadDataError(ValueError):
    """A data set cannot be used as it is. The message names the file, the row, the field and the remedy."""


class BadTokenizerError(BadDataError):
    """A tokenizer lacks something that hints or prompts are made with."""
