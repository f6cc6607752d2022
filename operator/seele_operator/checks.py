"""Rules that tie several fields of a SeeleRun together. Each is a generator of lines: field, value, reason, remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from seele_operator.bad_run import shown, yaml_path
from seele_operator.cluster_checks import cluster_problems
from seele_operator.owned_settings import OWNED_BY_SEELE
from seele_operator.pod_checks import env_problems, gpu_problems, resource_problems, template_problems
from seele_operator.spec import SeeleRun, SeeleRunSpec
from seele_operator.strategy_checks import strategy_problems
from seele_trainer.method_options import ON_SOLUTIONS, SUPERVISED, WITH_HINTS

_TITLE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def check_run(run: SeeleRun) -> list[str]:
    """Every combination of fields that cannot work, wherever the run is carried out; empty where all is well."""
    spec = run.spec
    rules = (_batches, strategy_problems, _solutions, _lengths, _engine, _deepspeed, _benchmarks, _gang)
    problems = [line for rule in rules for line in rule(spec)]
    for name, pods in (("trainer", spec.trainer), ("rollout", spec.rollout)):
        problems += resource_problems(("spec", name), pods.resources)
        problems += env_problems(("spec", name), pods.env)
        problems += template_problems(("spec", name), pods.pod_template)
    return [*problems, *gpu_problems(spec)]


def check_cluster(run: SeeleRun) -> list[str]:
    """What works on one machine and not where each pod has its own node and its own folders."""
    return list(cluster_problems(run.spec))


def _batches(spec: SeeleRunSpec) -> Iterator[str]:
    step, update = spec.training.problems_per_step, spec.training.problems_per_update
    if step % update:
        divisor = max(size for size in range(1, min(step, update) + 1) if step % size == 0)
        yield (
            f"spec.training.problemsPerUpdate: {update} does not divide problemsPerStep, which is {step}; "
            f"use a divisor of it, such as {divisor}"
        )
    ranks = spec.trainer.world_size
    if spec.training.strategy in SUPERVISED:
        sequences, which = update, "solutions (problemsPerUpdate)"
    else:
        sequences = update * spec.hints.rounds * spec.hints.rollouts_per_round
        which = "rollouts (problemsPerUpdate times rounds times rolloutsPerRound)"
    if sequences < ranks:
        yield (
            f"spec.trainer.replicas: {spec.trainer.replicas} times processesPerReplica "
            f"{spec.trainer.processes_per_replica} makes {ranks} ranks, and an update has only {sequences} {which}; "
            f"use at most {sequences} ranks"
        )


def _solutions(spec: SeeleRunSpec) -> Iterator[str]:
    columns = spec.dataset.fields
    if spec.dataset.format == "generic" and columns.solution is None and columns.steps is None:
        yield (
            "spec.dataset.fields.solution: null leaves nothing to cut hints from; "
            "name the column with solutions, or that with lists of steps in fields.steps"
        )
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        columns = benchmark.fields
        if benchmark.format == "generic" and columns.solution is None and columns.answer is None:
            place = yaml_path(("spec", "evaluation", "benchmarks", index, "fields", "answer"))
            yield f"{place}: null, as is solution: nothing to check against; name one of the columns"


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


def _engine(spec: SeeleRunSpec) -> Iterator[str]:
    if spec.rollout.engine != "transformers":
        return
    for field, value in (
        ("replicas", spec.rollout.replicas),
        ("tensorParallelSize", spec.rollout.tensor_parallel_size),
    ):
        if value > 1:
            yield f"spec.rollout.{field}: {value} needs servers; use 1 with engine transformers, or engine: vllm"


def _deepspeed(spec: SeeleRunSpec) -> Iterator[str]:
    def given(overrides: Mapping[str, object], path: tuple[str, ...]) -> Iterator[str]:
        for key, value in overrides.items():
            remedy = OWNED_BY_SEELE.get((*path, key))
            if remedy is not None:
                place = yaml_path(("spec", "trainer", "deepspeed", "overrides", *path, key))
                yield f"{place}: is set by Seele itself; {remedy}"
            elif isinstance(value, Mapping):
                yield from given(value, (*path, str(key)))

    yield from given(spec.trainer.deepspeed.overrides, ())


def _benchmarks(spec: SeeleRunSpec) -> Iterator[str]:
    for index, benchmark in enumerate(spec.evaluation.benchmarks):
        if not _TITLE.fullmatch(benchmark.title):
            place = yaml_path(("spec", "evaluation", "benchmarks", index, "title"))
            yield (
                f"{place}: {shown(benchmark.title)} cannot stand in metrics and on the command line; "
                "use at most 63 letters, digits, hyphens, dots and underscores, such as gsm8k"
            )


def _gang(spec: SeeleRunSpec) -> Iterator[str]:
    scheduling = spec.scheduling
    if scheduling.gang == "kueue" and scheduling.queue_name is None:
        yield "spec.scheduling.queueName: is missing, and gang kueue needs it; name a LocalQueue of the run's namespace"
    if scheduling.gang in {"none", "coscheduling"} and scheduling.queue_name is not None:
        yield (
            f"spec.scheduling.queueName: {shown(scheduling.queue_name)} has no effect with gang {scheduling.gang}; "
            "remove it, or use gang: kueue or volcano"
        )
