"""SeeleRuns that each break one rule in CEL."""

from __future__ import annotations

from typing import Any

from tests.support.spec_data import patched, small_run


def good_run() -> dict[str, Any]:
    """A run of two pods that breaks no rule."""
    return patched(small_run(), {"spec": {"storage": {"run": {"persistentVolumeClaim": {"claimName": "runs"}}}}})


GSM8K = {"title": "gsm8k", "path": "gsm8k.jsonl"}

CASES: dict[str, tuple[dict[str, Any], str]] = {
    "update that does not divide a step": (
        {"training": {"problemsPerStep": 10, "problemsPerUpdate": 4}},
        "spec.training.problemsPerUpdate",
    ),
    "more ranks than rollouts": (
        {"trainer": {"replicas": 9, "processesPerReplica": 8}, "training": {"problemsPerUpdate": 2}},
        "spec.trainer.replicas",
    ),
    "a single rollout": (
        {"hints": {"rounds": 1, "rolloutsPerRound": 1}, "training": {"strategy": "grpo"}},
        "spec.hints.rolloutsPerRound",
    ),
    "rounds without a baseline": (
        {"hints": {"rolloutsPerRound": 1}, "training": {"advantageGroup": "round"}},
        "spec.hints.rolloutsPerRound",
    ),
    "a prefix and one plain rollout": (
        {"hints": {"rounds": 1, "rolloutsPerRound": 2}, "training": {"strategy": "prefix_rft"}},
        "spec.hints.rolloutsPerRound",
    ),
    "more ranks than solutions": (
        {"trainer": {"processesPerReplica": 3}, "training": {"strategy": "sft", "problemsPerUpdate": 2}},
        "spec.trainer.replicas",
    ),
    "a warm-up longer than a phase": (
        {
            "training": {
                "strategy": "sft_then_grpo",
                "steps": 8,
                "problemsPerStep": 2,
                "problemsPerUpdate": 2,
                "warmupUpdates": 2,
            }
        },
        "spec.training.warmupUpdates",
    ),
    "no supervised step": (
        {"training": {"strategy": "sft_then_grpo", "steps": 3}},
        "spec.training.sftThenGrpo.sftShare",
    ),
    "a bound above the longest prefix": (
        {"training": {"prefixRft": {"longestPrefix": 0.5, "firstLowerBound": 0.75}}},
        "spec.training.prefixRft.firstLowerBound",
    ),
    "solutions that do not fit": (
        {"model": {"contextLength": 3071}, "training": {"strategy": "luffy"}, "rollout": {"maxCompletionTokens": 1024}},
        "spec.dataset.maxSolutionTokens",
    ),
    "one round": ({"hints": {"rounds": 1}}, "spec.hints.rounds"),
    "a warm-up longer than the run": (
        {"training": {"steps": 2, "warmupUpdates": 8}},
        "spec.training.warmupUpdates",
    ),
    "too few without a hint": ({"hints": {"unhintedShare": 0.04}}, "spec.hints.unhintedShare"),
    "too many without a hint": ({"hints": {"unhintedShare": 0.95}}, "spec.hints.unhintedShare"),
    "none to spare": ({"hints": {"rolloutsPerRound": 1, "unhintedShare": 0.5}}, "spec.hints.unhintedShare"),
    "a server with more context than its model": (
        {"model": {"contextLength": 8192}, "rollout": {"maxModelLen": 8193}},
        "spec.rollout.maxModelLen",
    ),
    "completions that do not fit": ({"model": {"contextLength": 5119}}, "spec.rollout.maxCompletionTokens"),
    "answers that do not fit": (
        {"rollout": {"maxModelLen": 8192}, "evaluation": {"maxCompletionTokens": 7169}},
        "spec.evaluation.maxCompletionTokens",
    ),
    "fewer GPUs than processes": (
        {"trainer": {"processesPerReplica": 4, "resources": {"limits": {"nvidia.com/gpu": 2}}}},
        "spec.trainer.processesPerReplica",
    ),
    "fewer GPUs than the model is split over": (
        {"rollout": {"tensorParallelSize": 2, "resources": {"limits": {"amd.com/gpu": "1"}}}},
        "spec.rollout.tensorParallelSize",
    ),
    "a folder of one pod for two": (
        {"storage": {"run": {"persistentVolumeClaim": None, "emptyDir": {}}}},
        "spec.storage.run.emptyDir",
    ),
    "servers for transformers": (
        {"rollout": {"engine": "transformers", "replicas": 2}},
        "spec.rollout.replicas",
    ),
    "GPUs for transformers": (
        {"rollout": {"engine": "transformers", "tensorParallelSize": 2}},
        "spec.rollout.tensorParallelSize",
    ),
    "Kueue without a queue": ({"scheduling": {"gang": "kueue"}}, "spec.scheduling.queueName"),
    "a queue without Kueue": ({"scheduling": {"queueName": "team"}}, "spec.scheduling.queueName"),
    "offloaded optimizer without ZeRO": (
        {"trainer": {"deepspeed": {"zeroStage": 0, "offloadOptimizer": "cpu"}}},
        "spec.trainer.deepspeed",
    ),
    "offloaded parameters with ZeRO 2": (
        {"trainer": {"deepspeed": {"zeroStage": 2, "offloadParameters": "cpu"}}},
        "spec.trainer.deepspeed",
    ),
    "two data sets": ({"dataset": {"name": "openai/gsm8k"}}, "spec.dataset"),
    "no data set": ({"dataset": {"path": None}}, "spec.dataset"),
    "data in a table": ({"dataset": {"path": "train.csv"}}, "spec.dataset"),
    "no solutions": ({"dataset": {"fields": {"solution": None}}}, "spec.dataset.fields.solution"),
    "a benchmark without data": ({"evaluation": {"benchmarks": [{"title": "a"}]}}, "spec.evaluation.benchmarks"),
    "a benchmark in a table": (
        {"evaluation": {"benchmarks": [{"title": "a", "path": "a.csv"}]}},
        "spec.evaluation.benchmarks",
    ),
    "a benchmark without answers": (
        {"evaluation": {"benchmarks": [{**GSM8K, "fields": {"solution": None}}]}},
        "spec.evaluation.benchmarks",
    ),
    "a title of two words": (
        {"evaluation": {"benchmarks": [{**GSM8K, "title": "grade school"}]}},
        "spec.evaluation.benchmarks",
    ),
    "one title for two": ({"evaluation": {"benchmarks": [GSM8K, GSM8K]}}, "spec.evaluation"),
    "two kinds of a volume": ({"storage": {"run": {"hostPath": {"path": "/srv/runs"}}}}, "spec.storage.run"),
    "no kind of a volume": ({"storage": {"huggingFaceCache": {}}}, "spec.storage.huggingFaceCache"),
    "a relative folder": (
        {"storage": {"huggingFaceCache": {"hostPath": {"path": "srv/models"}}}},
        "spec.storage.huggingFaceCache.hostPath.path",
    ),
    "a folder above": (
        {"storage": {"huggingFaceCache": {"hostPath": {"path": "/srv/../etc"}}}},
        "spec.storage.huggingFaceCache.hostPath.path",
    ),
    "a claim in uppercase": (
        {"storage": {"run": {"persistentVolumeClaim": {"claimName": "Runs"}}}},
        "spec.storage.run.persistentVolumeClaim.claimName",
    ),
    "a secret with a slash": (
        {"storage": {"huggingFaceTokenSecret": {"name": "team/hf"}}},
        "spec.storage.huggingFaceTokenSecret.name",
    ),
    "a class with a space": ({"scheduling": {"priorityClassName": "very high"}}, "spec.scheduling.priorityClassName"),
    "a pull secret in uppercase": (
        {"scheduling": {"imagePullSecrets": [{"name": "Registry"}]}},
        "spec.scheduling.imagePullSecrets",
    ),
    "a size in words": ({"storage": {"sharedMemory": "8 GB"}}, "spec.storage.sharedMemory"),
    "a negative size": ({"storage": {"sharedMemory": -1}}, "spec.storage.sharedMemory"),
    "a variable with a hyphen": ({"trainer": {"env": [{"name": "NCCL-DEBUG"}]}}, "spec.trainer.env"),
    "a variable of Seele itself": ({"rollout": {"env": [{"name": "SEELE_RUN_DIR"}]}}, "spec.rollout.env"),
    "a variable that the plan sets": ({"trainer": {"env": [{"name": "WORLD_SIZE"}]}}, "spec.trainer.env"),
    "a variable given twice": (
        {"rollout": {"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}},
        "spec.rollout.env",
    ),
}
"""The patch for the spec of `good_run`, and the field that the message names, without indexes of lists."""


def bad_run(case: str) -> dict[str, Any]:
    """The SeeleRun of one case."""
    return patched(good_run(), {"spec": CASES[case][0]})
