"""Compares methods with a model of 84 million parameters on one GPU, without vLLM: `python -m benchmarks.methods_gpu`.

Trains a base model from scratch on easier chains than the quickstart's (a step is right one time in four), then each method
from it, with rollouts by transformers inside the trainer, DeepSpeed ZeRO 2 and bfloat16. Everything is kept in --out, so Ctrl-C
is safe at any time: repeat the command. `--tiny` does the same on a CPU with a model of 50 thousand parameters.
"""

import json
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.methods_study.design import STRATEGIES, Scale, method
from benchmarks.methods_study.results import HELD_OUT, VALIDATION, Run, measured
from benchmarks.methods_study.tables import percent
from benchmarks.methods_study.training import BadOption, Stopped, TrainingFailed, machine, quickstart, train, versions
from seele_operator.api.types import BadRunError
from seele_operator.validation.load import check_run, parse_run
from seele_trainer.methods import StrategyName
from seele_trainer.quickstart import chains
from seele_trainer.quickstart.base_model import Size, train_base_model
from seele_trainer.report.summary import summarise_run
from seele_trainer.run_folder.journal import JournalError, read_records
from seele_trainer.run_folder.records import EvaluationRecord, StepRecord
from tests.support.spec_data import patched
from tools.markdown import table

ZERO_STAGE = 2


@dataclass(frozen=True)
class Plan:
    """What is trained. The base model is trained again if its settings change."""

    size: Size = field(default_factory=lambda: Size(hidden=1024, layers=8, heads=16))
    right_step: float = 0.25
    base_updates: int = 1500
    base_batch: int = 512
    base_learning_rate: float = 6e-4
    problems: int = 1024
    test_problems: int = 256
    scale: Scale = field(default_factory=Scale)


TINY = Plan(Size(64, 1, 2), 0.25, 30, 32, 3e-3, 128, 16, Scale(steps=2, seeds=1, problems_per_step=4))
"""Just enough to see that the script works."""


def make_base(out: Path, plan: Plan, device: str) -> Path:
    """Make problems and base model, unless the same recipe made them before."""
    folder = out / "base"
    recipe = json.dumps({name: value for name, value in asdict(plan).items() if name != "scale"}, indent=1)
    stamp = folder / "recipe.json"
    if stamp.is_file() and stamp.read_text() == recipe:
        return folder
    if folder.exists():
        raise BadOption(
            f"--out: {folder} was made by another recipe, or is incomplete: delete it, or name another folder"
        )
    folder.mkdir(parents=True)
    train_problems = chains.sample_problems(plan.problems, 0)
    test = chains.sample_problems(plan.test_problems, 1, frozenset(one.question for one in train_problems))
    chains.write_problems(folder / "train.jsonl", train_problems)
    chains.write_problems(folder / "test.jsonl", test)
    excess = train_base_model(
        folder / "base",
        frozenset(one.question for one in (*train_problems, *test)),
        updates=plan.base_updates,
        batch=plan.base_batch,
        learning_rate=plan.base_learning_rate,
        seed=0,
        right_step=plan.right_step,
        size=plan.size,
        device=device,
    )
    print(f"base model ready; its loss is {excess:.4f} nats a step above what its text allows", flush=True)
    stamp.write_text(recipe)
    return folder


def manifest(problems: Path, strategy: StrategyName, learning_rate: float, plan: Plan, device: str) -> dict[str, Any]:
    """The SeeleRun of one method."""
    changes: dict[str, Any] = {
        "model": {"dtype": "bfloat16"},
        "training": {
            "strategy": strategy,
            "learningRate": learning_rate,
            "steps": plan.scale.steps,
            "problemsPerStep": plan.scale.problems_per_step,
            "problemsPerUpdate": plan.scale.problems_per_step,
        },
        "rollout": {"engine": "transformers"},
        "trainer": {"deepspeed": {"zeroStage": ZERO_STAGE}},
        "checkpoints": {"everySteps": max(1, plan.scale.steps // 4)},
    }
    if device == "cuda":
        gpu = {"resources": {"limits": {"nvidia.com/gpu": "1"}}, "env": []}
        changes = patched(changes, {"trainer": gpu})
    run = quickstart(
        problems.resolve(), strategy.replace("_", "-"), patched(changes, method(strategy, plan.scale).changes)
    )
    held_out = run["spec"]["evaluation"]["benchmarks"][0]
    run["spec"]["evaluation"] |= {
        "everySteps": max(1, plan.scale.steps // 8),
        "benchmarks": [held_out | {"title": HELD_OUT}, held_out | {"title": VALIDATION, "limit": 16}],
    }
    return run


def row(strategy: str, run: Run, folder: Path) -> dict[str, Any]:
    """One row: the study's measures of the run, tokens per second, and each phase's share of the time."""
    summary = summarise_run(
        read_records(folder / "metrics.jsonl", StepRecord), read_records(folder / "eval.jsonl", EvaluationRecord)
    )
    seconds = {phase.phase: phase.seconds for phase in summary.phases}
    return {
        "strategy": strategy,
        "run": run.model_dump(mode="json", by_alias=True),
        "generatedTokensPerSecond": _rate(run.tokens.generated, seconds.get("rollout", 0.0)),
        "trainedTokensPerSecond": _rate(run.tokens.trained, seconds.get("train", 0.0)),
        "timeSplit": {phase.phase: round(phase.share, 4) for phase in summary.phases},
    }


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as a table in Markdown."""
    head = ("method", "before", "after", "curve, %", "sampled tokens/s", "trained tokens/s", "time")
    lines = [
        (
            f"`{one['strategy']}`",
            percent(one["run"]["heldOut"][0]),
            percent(one["run"]["heldOut"][-1]),
            " ".join(percent(value) for value in one["run"]["heldOut"]),
            f"{one['generatedTokensPerSecond']:,.0f}",
            f"{one['trainedTokensPerSecond']:,.0f}",
            ", ".join(f"{phase} {share:.0%}" for phase, share in one["timeSplit"].items() if share >= 0.005),
        )
        for one in rows
    ]
    return table(head, lines)


def main(
    strategies: Annotated[str, typer.Option(help="Methods, separated by commas.")] = "seele,grpo",
    learning_rate: Annotated[float, typer.Option(help="For all methods; not tuned.", min=1e-8, max=0.1)] = 3e-5,
    out: Annotated[Path, typer.Option(help="Folder for the base model and the runs.")] = Path(".cache/methods-gpu"),
    results_file: Annotated[
        Path | None, typer.Option(help="JSON file for the rows, with the command, versions and machine.")
    ] = None,
    tiny: Annotated[bool, typer.Option("--tiny", help="A minute on a CPU, to see that the script works.")] = False,
) -> None:
    """Train the base model and each method from it; print a table with one row for each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = TINY if tiny else Plan()
    command = "python -m " + shlex.join(["benchmarks.methods_gpu", *sys.argv[1:]])
    rows = []
    try:
        named = [name for name in STRATEGIES if name in strategies.split(",")]
        unknown = set(strategies.split(",")) - set(named)
        if unknown:
            raise BadOption(f"--strategies: there is no {sorted(unknown)[0]!r}; use some of {','.join(STRATEGIES)}")
        if device == "cpu" and not tiny:
            raise BadOption("PyTorch finds no GPU; `--tiny` tries the script on a CPU")
        problems = make_base(out, plan, device)
        for strategy in named:
            wanted = manifest(problems, strategy, learning_rate, plan, device)
            wrong = check_run(parse_run(wanted))
            if wrong:
                raise BadRunError(wrong)
            folder = out / f"{strategy}-{learning_rate:g}"
            print(f"{strategy}: {folder}", flush=True)
            train(wanted, folder)
            rows.append(row(strategy, measured(folder, 0), folder))
    except (Stopped, KeyboardInterrupt):
        print(f"Stopped; only an unfinished base model is lost. To resume: {command}", file=sys.stderr)
        raise SystemExit(130) from None
    except (BadOption, BadRunError, JournalError, TrainingFailed) as error:
        raise SystemExit(f"error: {error}") from None
    print(markdown(rows))
    if results_file is not None:
        found = {
            "command": command,
            "machine": machine() | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}),
            "versions": versions(),
            "plan": asdict(plan),
            "learningRate": learning_rate,
            "rows": rows,
        }
        results_file.parent.mkdir(parents=True, exist_ok=True)
        results_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _rate(tokens: int, seconds: float) -> float:
    return round(tokens / seconds, 1) if seconds else 0.0


if __name__ == "__main__":
    typer.run(main)
