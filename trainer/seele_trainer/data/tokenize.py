"""Tokenise a problem once: its prompt, its solution, and how much of the solution hints may show."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from seele_trainer.config import Dataset
from seele_trainer.data.problem import BadTokenizerError, Problem, TokenizedProblem
from seele_trainer.data.prompts import Template, encode_prompt
from seele_trainer.data.reveal import revealable_characters

_LINE_BREAK = re.compile(r"(?<=\S)[ \t\r]*\n(?:[ \t\r]*\n)*")
"""The end of a line that is not blank, with the blank lines that follow: they belong to the step before them."""


@dataclass(frozen=True)
class Dropped:
    """How many problems were left out, and why; `without_hint` were kept, though nothing of theirs can be shown."""

    prompt_too_long: int = 0
    solution_too_long: int = 0
    without_hint: int = 0

    @property
    def total(self) -> int:
        """Problems that were left out."""
        return self.prompt_too_long + self.solution_too_long

    def __str__(self) -> str:
        return (
            f"{self.prompt_too_long} with a prompt too long, {self.solution_too_long} with a solution too long "
            f"({self.without_hint} kept of which nothing can be shown)"
        )


def tokenize(problem: Problem, tokenizer: PreTrainedTokenizerBase, template: Template) -> TokenizedProblem:
    """Tokenise prompt and solution, the solution in one piece and closed by the end-of-sequence token.

    `revealable` counts the leading tokens that lie wholly before the final answer (data.reveal); steps end at line
    breaks.
    Raises BadTokenizerError for a tokenizer without character offsets or without an end-of-sequence token.
    """
    end = _end_token(tokenizer)
    encoded = tokenizer(problem.solution, add_special_tokens=False, return_offsets_mapping=True)
    tokens: list[int] = encoded["input_ids"]
    ends = _token_ends(encoded["offset_mapping"])
    shown = revealable_characters(problem.question, problem.solution, problem.answer)
    revealable = _tokens_within(ends, shown)
    return TokenizedProblem(
        problem=problem,
        prompt=encode_prompt(tokenizer, problem.question, template),
        solution=(*tokens, end),
        revealable=revealable,
        step_ends=_step_ends(problem.solution, ends, revealable),
    )


def tokenize_all(
    problems: list[Problem], tokenizer: PreTrainedTokenizerBase, dataset: Dataset
) -> tuple[list[TokenizedProblem], Dropped]:
    """Tokenise the problems that fit the data set's limits, in their order, and count those that do not."""
    kept: list[TokenizedProblem] = []
    prompt_too_long = solution_too_long = 0
    for problem in problems:
        tokenized = tokenize(problem, tokenizer, dataset.prompt_template)
        if len(tokenized.prompt) > dataset.max_prompt_tokens:
            prompt_too_long += 1
        elif len(tokenized.solution) > dataset.max_solution_tokens:
            solution_too_long += 1
        else:
            kept.append(tokenized)
    without_hint = sum(tokenized.revealable == 0 for tokenized in kept)
    return kept, Dropped(prompt_too_long, solution_too_long, without_hint)


def _end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    if not tokenizer.is_fast:
        raise BadTokenizerError(
            "the model's tokenizer gives no character offsets, which hints are cut by: "
            "it needs a tokenizer.json (a fast tokenizer)"
        )
    if tokenizer.eos_token_id is None:
        raise BadTokenizerError(
            "the model's tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _token_ends(offsets: list[tuple[int, int]]) -> list[int]:
    """Character offset at which each token ends, never falling.

    The tokens of one character that is split into bytes all end after it, so none of them is shown without the others.
    """
    ends: list[int] = []
    for _, end in offsets:
        ends.append(max(end, ends[-1] if ends else 0))
    return ends


def _tokens_within(ends: list[int], characters: int) -> int:
    """How many leading tokens end at or before a character offset."""
    return bisect_left(ends, characters + 1)


def _step_ends(solution: str, ends: list[int], revealable: int) -> tuple[int, ...]:
    """Token offsets in [1, revealable] at which a line of the solution ends, its line breaks included."""
    steps: list[int] = []
    for line_break in _LINE_BREAK.finditer(solution):
        tokens = bisect_left(ends, line_break.end()) + 1
        if tokens > revealable:
            break
        if not steps or tokens > steps[-1]:
            steps.append(tokens)
    return tuple(steps)
