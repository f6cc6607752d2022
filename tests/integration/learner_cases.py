"""Shared by the learner's tests and the processes they start: cases, configurations and outcomes."""

import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seele_trainer.config import Dataset, Model, RolloutOptions, Trainer, TrainerConfig, Training
from seele_trainer.deepspeed_options import DeepSpeed
from seele_trainer.learner.sample import Sample

TOTAL_UPDATES = 6


@dataclass(frozen=True)
class Case:
    """One learner: its settings, the name of the samples it trains on, and what is done with it."""

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
    """Checkpoint folder to write after the updates, inside the shared folder."""
    load: str = ""
    """Checkpoint folders, separated by spaces: the first that is whole is loaded before the updates."""
    stop_at: int | None = None
    """Micro-batch of one more update, from 1, before which it is stopped and abandoned."""
    first_update: int = 0
    """Number of the first update, which selects its samples."""
    follow: bool = True
    """Whether ranks other than 0 follow. Otherwise they make the same calls with None."""


@dataclass(frozen=True)
class Outcome:
    """Results of one rank: the stats of each update and log-probabilities of the last weights, or its error."""

    stats: list[Any]
    logprobs: list[Any]
    error: str | None = None
    models: int = 0
    """Number of models that the rank loaded: the policy, and the initial model if there is a KL term."""
    decoy_logprobs: list[Any] = field(default_factory=list)
    """Log-probabilities of the last weights with the output head multiplied by -4."""


def config_of(case: Case, shared: Path) -> TrainerConfig:
    """The trainer's configuration of a case, in which clipping, decay, the KL term and the schedule all matter."""
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


def environment() -> dict[str, str]:
    """The environment for fresh ranks: without variables of a torchrun that started this process."""
    ranks = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    inherited = {name: value for name, value in os.environ.items() if name not in ranks}
    return {**inherited, "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}


def model_folder(shared: Path, *, tied: bool) -> Path:
    return shared / ("tied" if tied else "untied")


def samples_of(shared: Path, name: str) -> list[list[Sample]]:
    """The samples of each update."""
    samples: list[list[Sample]] = pickle.loads((shared / f"{name}.samples").read_bytes())
    return samples


SEQUENCES = [[5, 6, 7, 8, 9], [1, 2], [40, 30, 20, 10, 0, 63, 62]]
"""Scored at the end of every case."""
