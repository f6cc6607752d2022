"""Studies of methods with made-up figures, and their parts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.methods_study.results import HELD_OUT, VALIDATION, RateChoice, Run, SettingResult, Source, Study
from seele_trainer.run_folder.records import BenchmarkScore, EvaluationRecord, StepRecord, Tokens

BASE = "0123456789ab"
"""The base model, unless another one is given."""


def an_evaluation(step: int, held_out: float, validation: float, seconds: float = 1.0) -> EvaluationRecord:
    accuracies = {HELD_OUT: held_out, VALIDATION: validation}
    scores = {title: BenchmarkScore(problems=4, greedy_accuracy=accuracy) for title, accuracy in accuracies.items()}
    return EvaluationRecord(step=step, time=0.0, policy_version=step, seconds=seconds, scores=scores)


def write_records(folder: Path, steps: Sequence[StepRecord], evaluation: EvaluationRecord) -> None:
    for name, records in (("metrics", steps), ("eval", [evaluation])):
        lines = [record.model_dump_json(by_alias=True) for record in records]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def a_run(seed: int, after: float, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "seed": seed,
        "folder": f"run{seed}",
        "evaluated_at": (0, 40),
        "held_out": (0.0, after),
        "validation": after,
        "rollouts": 20480,
        "tokens": Tokens(prompt=1, hint=2, generated=3_000_000, trained=1_500_000, loss=2_500_000),
        "accuracy_by_round": ((0.4, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 0.5)),
        "late_accuracy_by_round": (0.46, 0.48, 0.5, 0.51),
        "late_reward": 0.49,
        "late_hint_rate": 0.3,
        "efficiency": 0.9,
        "zero_gradient_groups": 0.05,
        "minutes": 2.5,
    }
    return Run(**{**fields, **changes})


def a_setting(
    part: Any, name: str, afters: list[float], strategy: Any = "seele", base_model: str = BASE, **changes: Any
) -> SettingResult:
    runs = tuple(a_run(seed, after, **changes) for seed, after in enumerate(afters))
    return SettingResult(
        part=part,
        name=name,
        strategy=strategy,
        changes={},
        learning_rate=3e-4,
        base_model=base_model,
        runs=runs,
    )


def a_source(
    *parts: Any,
    command: str = "python -m benchmarks.methods",
    base_model: str = BASE,
    revision: str | None = None,
) -> Source:
    computer: dict[str, str | int] = {"architecture": "x86_64", "system": "Linux", "cores": 2, "memoryGiB": 24}
    versions = {"seele": "0.1.0"}
    return Source(
        parts=parts,
        command=command,
        machine=computer,
        base_model=base_model,
        at_once=2,
        versions=versions,
        revision=revision,
    )


def a_study(*results: SettingResult, **changes: Any) -> Study:
    fields: dict[str, Any] = {
        "tiny": False,
        "sources": (a_source(*dict.fromkeys(result.part for result in results)),),
        "problems": {"seed": 0},
        "steps": 40,
        "seeds": 3,
        "problems_per_step": 16,
        "rollouts_per_problem": 32,
        "rates": (RateChoice(strategy="seele", tried=((1e-4, 0.5), (3e-4, 0.8)), chosen=3e-4),),
        "settings": results,
    }
    return Study(**{**fields, **changes})


WHOLE = a_study(
    a_setting("methods", "grpo", [0.0, 0.1, 0.2], strategy="grpo", accuracy_by_round=((0.1,),)),
    a_setting("methods", "seele", [0.8, 0.9, 1.0]),
    a_setting("unsupervised", "seele, hints not learnt", [0.6, 0.7, 0.8], efficiency=0.7),
    a_setting("unsupervised", "uft, hints not learnt", [0.1, 0.1, 0.1], strategy="uft"),
    a_setting("targets", "target 0.25", [0.6, 0.6, 0.6], unhinted_share=0.9, whole_share=0.05, free_reward=0.24),
    a_setting("targets", "target 0.5", [0.8, 0.9, 1.0]),
    a_setting("rounds", "2 × 16", [0.7, 0.7, 0.7], accuracy_by_round=((0.4, 0.5),), late_accuracy_by_round=(0.4, 0.5)),
    a_setting("estimators", "shared-ability", [0.8, 0.8, 0.8], efficiency=0.9, second_pass_first_round=0.52),
    a_setting("estimators", "paper", [0.7, 0.7, 0.7], efficiency=0.8, second_pass_first_round=0.7),
    a_setting("options", "hints end at steps", [0.5, 0.6, 0.7]),
    a_setting("supervision", "high-entropy", [0.4, 0.4, 0.4]),
)
