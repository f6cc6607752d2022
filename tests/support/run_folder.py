"""Creates the folder of a plausible run from a seed, for tests of what reads such folders."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from seele_trainer.config import TrainerConfig
from seele_trainer.run_folder.journal import Journal
from seele_trainer.run_folder.records import (
    BenchmarkScore,
    Descent,
    EvaluationRecord,
    IrtParameters,
    Losses,
    SampleRollout,
    StepRecord,
    Tokens,
)
from seele_trainer.telemetry.metric import hint_rate_histogram

START = 1_790_000_000.0


def run_config(steps: int = 120, *, name: str = "quickstart", every: int = 20, **sections: object) -> TrainerConfig:
    """Configuration of a small run with one benchmark; `sections` add or replace parts."""
    return TrainerConfig.model_validate(
        {
            "name": name,
            "model": {"name": "models/chains-base", "dtype": "float32"},
            "dataset": {"path": "data/train.jsonl", "promptTemplate": "plain"},
            "training": {"steps": steps, "problemsPerStep": 16, "problemsPerUpdate": 16},
            "evaluation": {
                "everySteps": every,
                "benchmarks": [{"title": "held-out", "path": "data/test.jsonl", "samples": 4}],
            },
            **sections,
        }
    )


def step_record(step: int, *, steps: int = 120, seed: int = 0, problems: int = 16, **changes: object) -> StepRecord:
    """One step of a successful run: rounds near the target, shrinking hints; `changes` replace fields."""
    random = np.random.default_rng((seed, step))
    done = step / steps
    mean_rate = 0.75 * (1 - done) ** 1.3
    rates = np.clip(random.normal(mean_rate, 0.18, size=problems * 32), 0, 1)
    rounds = [
        float(np.clip(0.5 + 0.3 * np.exp(-4 * done) / number + random.normal(0, 0.05), 0, 1)) for number in (1, 2, 3, 4)
    ]
    phases = {
        "rollout": 1.4 - 0.4 * done,
        "verify": 0.05,
        "train": 0.9,
        "sync": 0.12,
        "checkpoint": 0.2 * (step % 20 == 0),
    }
    phases = {phase: seconds * float(random.uniform(0.9, 1.1)) for phase, seconds in phases.items()}
    generated = int(problems * 32 * (14 + 10 * done))
    record = StepRecord.model_validate(
        {
            "step": step,
            "time": START + 2.7 * step,
            "policy_version": step - 1,
            "reward": float(np.mean(rounds)),
            "accuracy_by_round": tuple(rounds),
            "hint_rate": float(rates.mean()),
            "hint_rate_by_round": tuple(float(np.clip(mean_rate + shift, 0, 1)) for shift in (0.05, 0.02, 0.0, -0.01)),
            "hint_rate_histogram": hint_rate_histogram(rates.tolist()),
            "target_accuracy": 0.5,
            "unhinted_accuracy": float(np.clip(0.65 * done**0.6 + random.normal(0, 0.06), 0, 1)),
            "learning_efficiency": float(np.clip(0.72 + random.normal(0, 0.04), 0, 1)),
            "zero_gradient_groups": float(np.clip(0.06 + random.normal(0, 0.03), 0, 1)),
            "losses": Losses(
                policy=float(random.normal(0, 0.01)),
                supervised=0.9 * float(np.exp(-2 * done)) + 0.2,
                kl=0.3 * done,
                total=float(random.normal(0, 0.01)),
            ),
            "gradient_norm": float(random.lognormal(-0.5, 0.3)),
            "clip_fraction": float(random.uniform(0, 0.03)),
            "learning_rate": 1e-3 * (1 - 0.9 * done),
            "mismatch_kl": float(random.lognormal(-9, 0.5)),
            "truncated_completions": 0.01,
            "tokens": Tokens(
                prompt=problems * 32 * 20,
                hint=int(rates.sum() * 16),
                generated=generated,
                trained=generated // 2,
                loss=generated,
            ),
            "rollouts": problems * 32,
            "verifier_timeouts": int(step % 50 == 0),
            "irt": IrtParameters(
                discrimination=tuple(random.lognormal(2.0, 0.6, size=problems).tolist()),
                ability=tuple(random.normal(-mean_rate, 0.1, size=problems).tolist()),
                guessing=tuple(random.beta(1, 20, size=problems).tolist()),
            ),
            "irt_fit_seconds": 0.004,
            "irt_fit_fallbacks": 0,
            "weight_sync_seconds": phases["sync"],
            "canary_difference": 1e-4,
            "rollout_requests": {"ok": problems * 4, "retried": 0, "failed": 0},
            "phase_seconds": phases,
            "step_seconds": sum(phases.values()) + 0.08,
        }
    )
    return record.model_copy(update=changes)


def descents(step: int, seed: int = 0, problems: int = 16) -> tuple[Descent, ...]:
    """What a step gained on problems of 32 rollouts: about a(1-a), in nats."""
    random = np.random.default_rng((seed, step, 1))
    accuracies = np.clip(random.binomial(32, 0.5, size=problems), 1, 31) / 32
    gained = accuracies * (1 - accuracies) * random.normal(1, 0.3, size=problems)
    return tuple(Descent(accuracy=a, descent=d) for a, d in zip(accuracies.tolist(), gained.tolist(), strict=True))


def evaluation_record(step: int, accuracy: float, *, sampled: float | None = None) -> EvaluationRecord:
    """An evaluation on `held-out`."""
    score = BenchmarkScore(
        problems=256, greedy_accuracy=accuracy, sampled_accuracy=sampled, samples=4 if sampled else 0
    )
    return EvaluationRecord(
        step=step, time=START + 2.7 * step, policy_version=step, seconds=1.5, scores={"held-out": score}
    )


def sample_rollouts(step: int, rate: float) -> list[SampleRollout]:
    """Three rollouts of one step: right with a hint, wrong with a hint, and one without a hint."""
    solution = "a 3 b 7 c 9 d 2 e 6 f 8"
    cut = round(rate * len(solution.split()))
    hint = " ".join(solution.split()[:cut])
    rest = " ".join(solution.split()[cut:])
    prompt = "start 3, then +4, +2, +3, +4, +2 modulo 10. Work it out label by label.\n"
    common: dict[str, Any] = {"step": step, "prompt": prompt}
    return [
        SampleRollout(
            **common, problem_id="chain-17", round=3, rate=rate, hint=hint, completion=f" {rest} answer 8", reward=1.0
        ),
        SampleRollout(
            **common, problem_id="chain-42", round=2, rate=rate, hint=hint, completion=" e 7 f 9 answer 9", reward=0.0
        ),
        SampleRollout(
            **common, problem_id="chain-17", round=4, rate=0.0, hint="", completion="a 3 b 8 c <b>0</b>", reward=None
        ),
    ]


def make_run_folder(
    folder: Path, *, steps: int = 120, planned: int | None = None, seed: int = 0, every: int = 20
) -> Path:
    """Write the files of a run of `steps` steps out of `planned`; held-out accuracy goes from 2 % to at most 67 %."""
    planned = planned or steps
    folder.mkdir(parents=True, exist_ok=True)
    config = run_config(planned, every=every)
    (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json", by_alias=True), sort_keys=False))
    with Journal(folder / "metrics.jsonl") as metrics:
        for step in range(1, steps + 1):
            measured = {"descents": descents(step, seed)} if step % every == 0 else {}
            metrics.append(step_record(step, steps=planned, seed=seed, **measured))
    with Journal(folder / "eval.jsonl") as evaluations:
        for step in sorted({*range(0, steps + 1, every), *([steps] if steps == planned else [])}):
            accuracy = 0.02 + 0.65 * (step / planned) ** 0.5
            evaluations.append(evaluation_record(step, accuracy, sampled=0.9 * accuracy))
    with Journal(folder / "rollouts.jsonl") as rollouts:
        for step in range(1, steps + 1):
            rollouts.append(*sample_rollouts(step, rate=round(0.75 * (1 - step / planned), 2)))
    return folder
