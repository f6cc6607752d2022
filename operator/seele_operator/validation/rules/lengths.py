"""Rules about lengths in tokens: prompts, hints, solutions and completions have to fit into the context."""

import math
from collections.abc import Iterator, Mapping

from seele_operator.api.seelerun import SeeleRunSpec
from seele_operator.validation.rules.rule import Rule, Rules, Values, strategy_is, when

Limit = tuple[int, str]
"""Tokens, and where this limit comes from."""

_SERVED = "self.rollout.engine == 'vllm' && has(self.rollout.maxModelLen)"

_LIMITED = f"(has(self.model.contextLength) || {_SERVED})"

_LIMIT = (
    f"({_SERVED} ? (has(self.model.contextLength) && self.model.contextLength < self.rollout.maxModelLen ? "
    "self.model.contextLength : self.rollout.maxModelLen) : self.model.contextLength)"
)

_HINT = f"({strategy_is(lambda method: method.shows_hints)} ? self.dataset.maxSolutionTokens : 0)"

_TOO_LONG = "[{sum} tokens do not fit into {source}, which is {limit}|"

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
    """The values for `_TOO_LONG` and `_REMEDY` if a field and `others` together exceed the limit."""
    if value is None or limit is None:
        return
    tokens, source = limit
    room = tokens - sum(others.values())
    if value > room:
        terms = " + ".join([*(f"{field} {length}" for field, length in others.items()), str(value)])
        shorter = f"use at most {room} here, or shorten the others"
        remedy = shorter if room > 0 else "lower dataset.maxPromptTokens and dataset.maxSolutionTokens first"
        yield {"sum": f"{terms} = {value + tokens - room}", "limit": tokens, "source": source, "remedy": remedy}


def _completions(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    others = {"dataset.maxPromptTokens": spec.dataset.max_prompt_tokens}
    if spec.training.method.shows_hints:
        others["dataset.maxSolutionTokens"] = spec.dataset.max_solution_tokens
    return _overrun(spec.rollout.max_completion_tokens, others, limit)


def _answers(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    others = {"dataset.maxPromptTokens": spec.dataset.max_prompt_tokens}
    return _overrun(spec.evaluation.max_completion_tokens, others, limit)


def _solutions(spec: SeeleRunSpec, limit: Limit | None) -> Iterator[Values]:
    length = spec.dataset.max_solution_tokens if spec.training.method.trains_on_solutions else None
    return _overrun(length, {"maxPromptTokens": spec.dataset.max_prompt_tokens}, limit)


_COMPLETIONS = Rule(
    "spec.rollout.maxCompletionTokens",
    f"{_TOO_LONG}with dataset.maxPromptTokens and, for strategies with hints, dataset.maxSolutionTokens does not fit "
    f"into rollout.maxModelLen or model.contextLength]{_REMEDY}",
    f"!{_LIMITED} || self.dataset.maxPromptTokens + {_HINT} + self.rollout.maxCompletionTokens <= {_LIMIT}",
    check=lambda spec: _completions(spec, _server_limit(spec)),
)

_ANSWERS = Rule(
    "spec.evaluation.maxCompletionTokens",
    f"{_TOO_LONG}with dataset.maxPromptTokens does not fit into rollout.maxModelLen or model.contextLength]{_REMEDY}",
    f"!{_LIMITED} || !has(self.evaluation.maxCompletionTokens) || "
    f"self.dataset.maxPromptTokens + self.evaluation.maxCompletionTokens <= {_LIMIT}",
    check=lambda spec: _answers(spec, _server_limit(spec)),
)

_SOLUTIONS = Rule(
    "spec.dataset.maxSolutionTokens",
    f"{_TOO_LONG}with maxPromptTokens does not fit into model.contextLength], "
    f"and [strategy {{training.strategy}}|this strategy] trains on whole solutions{_REMEDY}",
    f"!has(self.model.contextLength) || !({strategy_is(lambda method: method.trains_on_solutions)}) || "
    "self.dataset.maxPromptTokens + self.dataset.maxSolutionTokens <= self.model.contextLength",
    check=lambda spec: _solutions(spec, _context_limit(spec)),
)

_MODEL_LEN = Rule(
    "spec.rollout.maxModelLen",
    "[{rollout.max_model_len} ]is above model.contextLength[, which is {model.context_length}]; "
    "use at most [{model.context_length}|that], or leave it out",
    "!has(self.rollout.maxModelLen) || !has(self.model.contextLength) || "
    "self.rollout.maxModelLen <= self.model.contextLength",
    check=when(lambda spec: (spec.rollout.max_model_len or 0) > (spec.model.context_length or math.inf)),
)

RULES = Rules([_MODEL_LEN, _COMPLETIONS, _ANSWERS, _SOLUTIONS])


def problems_in_context(spec: SeeleRunSpec, context: int) -> Iterator[str]:
    """What does not fit into the context that the model's own config.json allows, if the run sets no limit."""
    limit = context, "the model's max_position_embeddings"
    checks = [(_SOLUTIONS, _solutions)]
    if spec.rollout.max_model_len is None:
        checks = [(_COMPLETIONS, _completions), (_ANSWERS, _answers), *checks]
    for rule, check in checks if spec.model.context_length is None else ():
        yield from (rule.line(spec, values) for values in check(spec, limit))
