"""SEELE against GRPO at the same budget on the quickstart's problem: `python benchmarks/seele_vs_grpo.py`.

Both train the same base model on the same problems with the same number of rollouts, evaluated greedily and without hints on
held-out problems. GRPO is given the best of several learning rates, chosen on the first seed by held-out accuracy. Each run is
a real `seele run` (vLLM server, DeepSpeed trainer); finished runs are kept in --out and not repeated.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
import yaml

from methods_study.training import QUICKSTART, Stopped, TrainingFailed, is_finished, quickstart, train


@dataclass(frozen=True)
class Result:
    """One finished run: held-out greedy accuracy before and after, and the share of groups without any gradient."""

    strategy: str
    seed: int
    learning_rate: float
    steps: int
    rollouts: int
    before: float
    after: float
    best: float
    zero_gradient_groups: float
    minutes: float


def run_once(problems: Path, out: Path, strategy: str, seed: int, learning_rate: float, steps: int) -> Result:
    """Train, unless the folder holds the finished run already; an interrupted one is resumed."""
    folder = out / f"{strategy}-seed{seed}-lr{learning_rate:g}-{steps}"
    training = {"strategy": strategy, "seed": seed, "learningRate": learning_rate, "steps": steps}
    if not is_finished(folder):
        print(f"running {folder.name}", flush=True)
    try:
        train(quickstart(problems, f"{strategy}-seed{seed}", {"training": training}), folder)
    except TrainingFailed as error:
        raise SystemExit(f"error: {error}") from None
    except Stopped:
        print("Stopped; the same command goes on.", file=sys.stderr)
        raise SystemExit(130) from None
    evaluations = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    accuracies = [evaluation["scores"]["held-out"]["greedyAccuracy"] for evaluation in evaluations]
    half = records[len(records) // 2 :]
    return Result(
        strategy=strategy,
        seed=seed,
        learning_rate=learning_rate,
        steps=steps,
        rollouts=sum(record["rollouts"] for record in records),
        before=accuracies[0],
        after=accuracies[-1],
        best=max(accuracies),
        zero_gradient_groups=statistics.mean(record["zeroGradientGroups"] for record in half),
        minutes=sum(record["stepSeconds"] for record in records) / 60,
    )


def report(results: list[Result]) -> None:
    """Print a table of runs, then the margin on each seed."""
    print(
        f"{'strategy':8} {'seed':>4} {'lr':>7} {'rollouts':>8} {'before':>7} {'after':>7} {'best':>7} no gradient   min"
    )
    for r in results:
        print(
            f"{r.strategy:8} {r.seed:4d} {r.learning_rate:7g} {r.rollouts:8d} "
            f"{r.before:7.1%} {r.after:7.1%} {r.best:7.1%} {r.zero_gradient_groups:12.0%} {r.minutes:5.1f}"
        )


def main(
    out: Annotated[Path, typer.Option(help="Folder for the runs; finished ones are reused.")] = Path(
        "runs/seele-vs-grpo"
    ),
    steps: Annotated[int, typer.Option(help="Training steps of each run.")] = 40,
    seeds: Annotated[int, typer.Option(help="Seeds 0, 1, …")] = 3,
    grpo_learning_rates: Annotated[str, typer.Option(help="Tried on seed 0; the best is used.")] = "1e-4,3e-4,1e-3",
    problems: Annotated[Path, typer.Option(help="What `python -m seele_trainer.quickstart --out` wrote.")] = Path(
        ".cache/quickstart"
    ),
    results_file: Annotated[Path | None, typer.Option(help="Also write the results there, as JSON.")] = None,
) -> None:
    """Run both strategies on every seed and print who is ahead; exit code 1 where SEELE is not ahead on each."""
    rate = yaml.safe_load(QUICKSTART.read_text())["spec"]["training"]["learningRate"]
    tried = [
        run_once(problems, out, "grpo", 0, float(candidate), steps) for candidate in grpo_learning_rates.split(",")
    ]
    best = max(tried, key=lambda result: result.after).learning_rate
    grpo = [run_once(problems, out, "grpo", seed, best, steps) for seed in range(seeds)]
    seele = [run_once(problems, out, "seele", seed, rate, steps) for seed in range(seeds)]
    report([*(result for result in tried if result.learning_rate != best), *grpo, *seele])
    margins = [ours.after - theirs.after for ours, theirs in zip(seele, grpo, strict=True)]
    print(
        "SEELE ahead by " + ", ".join(f"{margin:.1%}" for margin in margins) + f"; mean {statistics.mean(margins):.1%}"
    )
    if results_file is not None:
        payload = {
            "command": "python " + " ".join(["benchmarks/seele_vs_grpo.py", *sys.argv[1:]]),
            "machine": f"{platform.machine()}, {platform.system()}",
            "versions": {name: version(name) for name in ("torch", "deepspeed", "transformers", "seele")},
            "results": [asdict(result) for result in [*tried, *grpo[1:], *seele]],
            "mean_margin": statistics.mean(margins),
        }
        results_file.parent.mkdir(parents=True, exist_ok=True)
        results_file.write_text(json.dumps(payload, indent=2) + "\n")
    if min(margins) <= 0:
        raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
