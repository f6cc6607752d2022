"""What the learner's tests share with the processes they start: cases, configurations and outcomes."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seele_trainer.config import Dataset, DeepSpeed, Model, RolloutOptions, Trainer, TrainerConfig, Training
from seele_trainer.learner.sample import Sample

TOTAL_UPDATES = 6


@dataclass(frozen=True)
class Case:
    """One learner: how it is set up, what it trains on (name of a set of samples), and what is done with it."""

    name: str
    samples: str = "mixed"
    updates: int = 3
    zero_stage: int = 0
    tied: bool = True
    dtype: str = "float32"
    training: dict[str, Any] = field(default_factory=dict)
    deepspeed: dict[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    save: str | None = None
    """Folder of a checkpoint to write after the updates, in the shared folder."""
    load: str | None = None
    """Folder of a checkpoint to load before them."""
    first_update: int = 0
    """Number of the first update, which decides its samples."""
    follow: bool = True
    """Whether ranks other than 0 follow; otherwise they make the same calls with None."""


@dataclass(frozen=True)
class Outcome:
    """What one rank of a case saw: the stats of each update, log-probabilities of the last weights, or its error."""

    stats: list[Any]
    logprobs: list[Any]
    error: str | None = None
    models: int = 0
    """Models that the rank loaded: the policy, and the initial one where it is compared with it."""


def config_of(case: Case, shared: Path) -> TrainerConfig:
    """The trainer's configuration of a case; clipping, decay, the KL term and the schedule all matter in it."""
    training = {
        "learning_rate": 1e-3,
        "learning_rate_schedule": "linear",
        "weight_decay": 0.1,
        "max_gradient_norm": 0.2,
        "kl_coefficient": 0.1,
        "tokens_per_micro_batch": 96,
        **case.training,
    }
    return TrainerConfig(
        name="learner-test",
        model=Model(name=str(model_folder(shared, tied=case.tied)), dtype=case.dtype),  # type: ignore[arg-type]
        dataset=Dataset(path="unused.jsonl"),
        training=Training(**training),
        rollout=RolloutOptions(temperature=case.temperature),
        trainer=Trainer(deepspeed=DeepSpeed(zero_stage=case.zero_stage, **case.deepspeed)),  # type: ignore[arg-type]
    )


def model_folder(shared: Path, *, tied: bool) -> Path:
    return shared / ("tied" if tied else "untied")


def samples_of(shared: Path, name: str) -> list[list[Sample]]:
    """The samples of each update."""
    samples: list[list[Sample]] = pickle.loads((shared / f"{name}.samples").read_bytes())
    return samples


SEQUENCES = [[5, 6, 7, 8, 9], [1, 2], [40, 30, 20, 10, 0, 63, 62]]
"""What every case scores at its end."""
