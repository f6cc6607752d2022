"""Lengths: rules of a SeeleRun, in Python and in CEL."""

from __future__ import annotations

from collections.abc import Iterator

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import Rule, is_one_of
from seele_trainer.methods import ON_SOLUTIONS, WITH_HINTS


def _lengths(spec: SeeleRunSpec) -> Iterator[str]:
    context, longest = spec.model.context_length, spec.rollout.max_model_len
    if context is not None and longest is not None and longest > context:
        yield (
            f"spec.rollout.maxModelLen: {longest} is above model.contextLength, which is {context}; "
            f"use at most {context}, or leave it out"
        )
    if longest is not None and spec.rollout.engine == "vllm":
        yield from length_problems(spec, min(longest, context or longest), "rollout.maxModelLen")
    elif context is not None:
        yield from length_problems(spec, context, "model.contextLength")
    if context is not None:
        yield from solution_problems(spec, context, "model.contextLength")


def length_problems(spec: SeeleRunSpec, limit: int, limited_by: str) -> Iterator[str]:
    """Prompts, hints and completions that do not fit together into `limit` tokens, which come from `limited_by`."""
    prompt, completion = spec.dataset.max_prompt_tokens, spec.rollout.max_completion_tokens
    hint = spec.dataset.max_solution_tokens if spec.training.strategy in WITH_HINTS else 0
    needed = prompt + hint + completion
    if needed > limit:
        with_hint = f" + dataset.maxSolutionTokens {hint}" if hint else ""
        yield (
            f"spec.rollout.maxCompletionTokens: dataset.maxPromptTokens {prompt}{with_hint} + {completion} = {needed} "
            f"tokens do not fit into {limited_by}, which is {limit}; {_shorten(limit - prompt - hint)}"
        )
    answer = spec.evaluation.max_completion_tokens
    if answer is not None and prompt + answer > limit:
        yield (
            f"spec.evaluation.maxCompletionTokens: dataset.maxPromptTokens {prompt} + {answer} = {prompt + answer} "
            f"tokens do not fit into {limited_by}, which is {limit}; {_shorten(limit - prompt)}"
        )


def solution_problems(spec: SeeleRunSpec, limit: int, limited_by: str) -> Iterator[str]:
    """Whole solutions to train on that do not fit behind their prompts into `limit` tokens, which come from `limited_by`."""
    prompt, solution, strategy = (
        spec.dataset.max_prompt_tokens,
        spec.dataset.max_solution_tokens,
        spec.training.strategy,
    )
    if strategy in ON_SOLUTIONS and prompt + solution > limit:
        yield (
            f"spec.dataset.maxSolutionTokens: maxPromptTokens {prompt} + {solution} = {prompt + solution} tokens do not fit "
            f"into {limited_by}, which is {limit}, and strategy {strategy} trains on whole solutions; "
            f"{_shorten(limit - prompt)}"
        )


def _shorten(room: int) -> str:
    return (
        f"use at most {room} here, or shorten the others"
        if room > 0
        else "lower dataset.maxPromptTokens and dataset.maxSolutionTokens first"
    )


_HINT = f"({is_one_of(WITH_HINTS)} ? self.dataset.maxSolutionTokens : 0)"

_NEEDED = f"self.dataset.maxPromptTokens + {_HINT} + self.rollout.maxCompletionTokens"

_ANSWER = "self.dataset.maxPromptTokens + self.evaluation.maxCompletionTokens"

_SERVED = "self.rollout.engine == 'vllm' && has(self.rollout.maxModelLen)"

_LIMITED = f"(has(self.model.contextLength) || {_SERVED})"

_LIMIT = (
    f"({_SERVED} ? (has(self.model.contextLength) && self.model.contextLength < self.rollout.maxModelLen ? "
    "self.model.contextLength : self.rollout.maxModelLen) : self.model.contextLength)"
)

_LENGTHS = (
    Rule(
        "spec",
        "!has(self.rollout.maxModelLen) || !has(self.model.contextLength) || "
        "self.rollout.maxModelLen <= self.model.contextLength",
        "spec.rollout.maxModelLen: is above model.contextLength; use at most that, or leave it out",
    ),
    Rule(
        "spec",
        f"!{_LIMITED} || {_NEEDED} <= {_LIMIT}",
        "spec.rollout.maxCompletionTokens: with dataset.maxPromptTokens and, for strategies with hints, "
        "dataset.maxSolutionTokens does not fit into rollout.maxModelLen or model.contextLength; use less here, "
        "or shorten the others",
    ),
    Rule(
        "spec",
        f"!has(self.model.contextLength) || !({is_one_of(ON_SOLUTIONS)}) || "
        "self.dataset.maxPromptTokens + self.dataset.maxSolutionTokens <= self.model.contextLength",
        "spec.dataset.maxSolutionTokens: with maxPromptTokens does not fit into model.contextLength, and this strategy "
        "trains on whole solutions; use less here, or shorten the others",
    ),
    Rule(
        "spec",
        f"!{_LIMITED} || !has(self.evaluation.maxCompletionTokens) || {_ANSWER} <= {_LIMIT}",
        "spec.evaluation.maxCompletionTokens: with dataset.maxPromptTokens does not fit into rollout.maxModelLen or "
        "model.contextLength; use less here, or shorten the others",
    ),
)
