"""Rules about lengths in tokens: prompts, hints, solutions and completions have to fit into the context."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import Rule, Rules, Values, strategy_is

Limit = tuple[int, str]
"""Tokens, and where this limit comes from."""

_SERVED = "self.rollout.engine == 'vllm' && has(self.rollout.maxModelLen)"

_LIMITED = f"(has(self.model.contextLength) || {_SERVED})"

_LIMIT = (
    f"({_SERVED} ? (has(self.model.contextLength) && self.model.contextLength < self.rollout.maxModelLen ? "
    "self.model.contextLength : self.rollout.maxModelLen) : self.model.contextLength)"
)

_HINT = f"({strategy_is(lambda method: method.shows_hints)} ? self.dataset.maxSolutionTokens : 0)"

_TOO_LONG = "[{sum} = {needed} tokens do not fit into {source}, which is {limit}|"

_REMEDY = "; [{remedy}|use less here, or shorten the others]"


def _context_limit(spec: SeeleRunSpec) -> Limit | None:
    context = spec.model.context_length
    return None if context is None else (context, "model.contextLength")


def _server_limit(spec: SeeleRunSpec) -> Limit | None:
    context, longest = spec.model.context_length, spec.rollout.max_model_len
    if longest is not None and spec.rollout.engine == "vllm":
        return min(longest, context or longest), "rollout.maxModelLen"
    return _context_limit(spec)


def _overrun(value: int | None, others: Mapping[str, int], limit: Limit | None) -> Iterator[Values]:
    """The values for `_TOO_LONG` and `_REMEDY` if a field and `others` exceed the limit together."""
    if value is None or limit is None:
        return
    room = limit[0] - sum(others.values())
    if value > room:
        yield {
            "sum": " + ".join([*(f"{field} {length}" for field, length in others.items()), str(value)]),
            "needed": sum(others.values()) + value,
            "limit": limit[0],
            "source": limit[1],
            "remedy": f"use at most {room} here, or shorten the others"
            if room > 0
            else "lower dataset.maxPromptTokens and dataset.maxSolutionTokens first",
        }


def _completions(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    others = {"dataset.maxPromptTokens": spec.dataset.max_prompt_tokens}
    if spec.training.method.shows_hints:
        others["dataset.maxSolutionTokens"] = spec.dataset.max_solution_tokens
    return _overrun(spec.rollout.max_completion_tokens, others, limit)


def _answers(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    others = {"dataset.maxPromptTokens": spec.dataset.max_prompt_tokens}
    return _overrun(spec.evaluation.max_completion_tokens, others, limit)


def _solutions(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    if spec.training.method.trains_on_solutions:
        for values in _overrun(
            spec.dataset.max_solution_tokens, {"maxPromptTokens": spec.dataset.max_prompt_tokens}, limit
        ):
            yield {**values, "strategy": spec.training.strategy}


_COMPLETIONS = Rule(
    "spec.rollout.maxCompletionTokens",
    f"{_TOO_LONG}with dataset.maxPromptTokens and, for strategies with hints, dataset.maxSolutionTokens does not fit "
    f"into rollout.maxModelLen or model.contextLength]{_REMEDY}",
    f"!{_LIMITED} || self.dataset.maxPromptTokens + {_HINT} + self.rollout.maxCompletionTokens <= {_LIMIT}",
    violations=lambda spec: _completions(spec, _server_limit(spec)),
)

_ANSWERS = Rule(
    "spec.evaluation.maxCompletionTokens",
    f"{_TOO_LONG}with dataset.maxPromptTokens does not fit into rollout.maxModelLen or model.contextLength]{_REMEDY}",
    f"!{_LIMITED} || !has(self.evaluation.maxCompletionTokens) || "
    f"self.dataset.maxPromptTokens + self.evaluation.maxCompletionTokens <= {_LIMIT}",
    violations=lambda spec: _answers(spec, _server_limit(spec)),
)

_SOLUTIONS = Rule(
    "spec.dataset.maxSolutionTokens",
    f"{_TOO_LONG}with maxPromptTokens does not fit into model.contextLength], "
    f"and [strategy {{strategy}}|this strategy] trains on whole solutions{_REMEDY}",
    f"!has(self.model.contextLength) || !({strategy_is(lambda method: method.trains_on_solutions)}) || "
    "self.dataset.maxPromptTokens + self.dataset.maxSolutionTokens <= self.model.contextLength",
    violations=lambda spec: _solutions(spec, _context_limit(spec)),
)

RULES = Rules([_COMPLETIONS, _ANSWERS, _SOLUTIONS])


@RULES.add(
    "spec.rollout.maxModelLen",
    "[{longest} ]is above model.contextLength[, which is {context}]; use at most [{context}|that], or leave it out",
    "!has(self.rollout.maxModelLen) || !has(self.model.contextLength) || "
    "self.rollout.maxModelLen <= self.model.contextLength",
)
def _model_len(spec: SeeleRunSpec) -> Iterator[Values]:
    context, longest = spec.model.context_length, spec.rollout.max_model_len
    if context is not None and longest is not None and longest > context:
        yield {"longest": longest, "context": context}


def problems_in_context(spec: SeeleRunSpec, context: int) -> Iterator[str]:
    """What does not fit into the context that the model's own config.json allows, if the run sets no limit."""
    limit = context, "the model's max_position_embeddings"
    if spec.model.context_length is not None:
        return
    if spec.rollout.max_model_len is None:
        yield from map(_COMPLETIONS.line, _completions(spec, limit))
        yield from map(_ANSWERS.line, _answers(spec, limit))
    yield from map(_SOLUTIONS.line, _solutions(spec, limit))
