"""Tokenise a problem once: its prompt, its solution, and how much of the solution hints may show."""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from transformers import PreTrainedTokenizerBase

from seele_trainer.config import Dataset
from seele_trainer.data.problem import BadTokenizerError, Problem, TokenizedProblem
from seele_trainer.data.reveal import revealable_characters

Template = Literal["r1-zero", "chat", "plain"]

R1_ZERO = (
    "Below, a user gives an assistant a problem. The assistant first reasons about it step by step, "
    "and then gives the final answer inside \\boxed{{}}.\n\nUser: {question}\n\nAssistant:\n"
)
"""Modelled on DeepSeek-R1-Zero's template (arXiv 2501.12948, Table 1): plain text, for any base model."""

INSTRUCTION = "Reason step by step, and give the final answer inside \\boxed{}."
"""Follows the question in the chat template; the rest of the template is the model's."""

_LINE_BREAK = re.compile(r"(?<=\S)[ \t\r]*\n(?:[ \t\r]*\n)*")
"""The end of a line that is not blank, with the blank lines after it, which belong to the same step."""


@dataclass(frozen=True)
class Dropped:
    """How many problems were skipped, and why; those `without_hint` were kept, but no part of them can be shown."""

    prompt_too_long: int = 0
    solution_too_long: int = 0
    without_hint: int = 0

    @property
    def total(self) -> int:
        """Problems that were skipped."""
        return self.prompt_too_long + self.solution_too_long

    def __str__(self) -> str:
        return (
            f"{self.prompt_too_long} with too long a prompt, {self.solution_too_long} with too long a solution "
            f"({self.without_hint} kept without any part that can be shown)"
        )


def tokenize(problem: Problem, tokenizer: PreTrainedTokenizerBase, template: Template) -> TokenizedProblem:
    """Tokenise prompt and solution, the solution in one piece with the end-of-sequence token.

    `revealable` counts the leading tokens that are entirely before the final answer (data.reveal). Steps end at line
    breaks. Raises BadTokenizerError for a tokenizer without character offsets or an end-of-sequence token.
    """
    end = _end_token(tokenizer)
    encoded = tokenizer(problem.solution, add_special_tokens=False, return_offsets_mapping=True)
    tokens: list[int] = encoded["input_ids"]
    ends = _token_ends(encoded["offset_mapping"])
    shown = revealable_characters(problem.question, problem.solution, problem.answer)
    revealable = bisect_left(ends, shown + 1)
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
    """Tokenise the problems within the data set's limits, in their order, and count the others."""
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


def encode_prompt(tokenizer: PreTrainedTokenizerBase, question: str, template: Template) -> tuple[int, ...]:
    """Token ids of the prompt for a question, with the beginning-of-sequence token if the tokenizer adds one.

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
    # Some tokenizers end a text with a separator or end token. A prompt must stay open, so only the first token is kept.
    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    whole = tokenizer(text)["input_ids"]
    begins = tokenizer.bos_token_id is not None and whole[:1] == [tokenizer.bos_token_id]
    return (*whole[:1], *tokens) if begins and tokens[:1] != whole[:1] else tuple(tokens)


def _encode_chat(tokenizer: PreTrainedTokenizerBase, question: str) -> tuple[int, ...]:
    if not getattr(tokenizer, "chat_template", None):
        raise BadTokenizerError(
            "dataset.promptTemplate is chat, but the model's tokenizer has no chat template: "
            "use r1-zero for a base model"
        )
    messages = [{"role": "user", "content": f"{question}\n{INSTRUCTION}"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    # The template writes its own special tokens, including the first one.
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _end_token(tokenizer: PreTrainedTokenizerBase) -> int:
    if not tokenizer.is_fast:
        raise BadTokenizerError(
            "the model's tokenizer gives no character offsets, which hints need: "
            "it needs a tokenizer.json (a fast tokenizer)"
        )
    if tokenizer.eos_token_id is None:
        raise BadTokenizerError(
            "the model's tokenizer has no end-of-sequence token: set eos_token in tokenizer_config.json"
        )
    return int(tokenizer.eos_token_id)


def _token_ends(offsets: list[tuple[int, int]]) -> list[int]:
    """Character offset at which each token ends, never decreasing.

    The tokens of a character that is split into bytes all end after it, so none of them is shown without the others.
    """
    ends: list[int] = []
    for _, end in offsets:
        ends.append(max(end, ends[-1] if ends else 0))
    return ends


def _step_ends(solution: str, ends: list[int], revealable: int) -> tuple[int, ...]:
    """Token offsets in [1, revealable] at which a line of the solution ends, including its line breaks."""
    steps: list[int] = []
    for line_break in _LINE_BREAK.finditer(solution):
        tokens = bisect_left(ends, line_break.end()) + 1
        if tokens > revealable:
            break
        if not steps or tokens > steps[-1]:
            steps.append(tokens)
    return tuple(steps)
