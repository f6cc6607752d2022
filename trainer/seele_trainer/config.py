# ruff: noqa: RUF012 - pydantic copies mutable defaults for each instance
"""Typed configuration of a run: what a trainer needs to know, without torch.

The SeeleRun spec of the operator embeds these models, so a field described here is described in `kubectl explain` too.
Names are snake_case in Python and camelCase in YAML. Defaults are the settings of arXiv 2509.06923.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema, field_validator, model_validator

from seele_trainer.frozen_model import (
    Fraction,
    FrozenModel,
    NonNegativeFloat,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
)
from seele_trainer.methods import FixedHint, Luffy, PrefixRft, SftThenGrpo, StrategyName, Uft

Replicas = Annotated[int, Field(ge=1, le=1000)]
"""Pods of one kind. Bounded, because the operator goes through them by name: a typing error must not hold all runs up."""


class Model(FrozenModel):
    """The language model to train."""

    name: Annotated[str, Field(min_length=1)]
    """Hugging Face model id, or a folder with config.json, safetensors and tokenizer."""
    revision: str | None = None
    """Git revision on the Hugging Face hub; the default branch where absent."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Floating point type of the forward pass, in the trainer and in the rollout servers."""
    context_length: PositiveInt | None = None
    """Longest prompt plus completion, in tokens; the model's own limit where absent."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""


class Fields(FrozenModel):
    """Names of the columns of a data set."""

    problem: str = "problem"
    """Column with the problem's text."""
    solution: str | None = "solution"
    """Column with the worked solution that hints are cut from; null for evaluation sets without one."""
    answer: str | None = None
    """Column with the final answer; where absent it is extracted from the solution."""
    steps: str | None = None
    """Column with the solution as a list of steps; where absent the solution is split at line breaks."""
    id: str | None = None
    """Column with a unique id; the row number where absent."""


class DatasetSource(FrozenModel):
    """Where problems come from: a data set of the Hugging Face hub, or a local JSONL or Parquet file."""

    name: str | None = None
    """Hugging Face data set id. Give either this or `path`."""
    path: Annotated[str, WithJsonSchema({"type": "string", "maxLength": 4096})] | None = None
    """Local .jsonl, .json or .parquet file. Give either this or `name`."""
    subset: str | None = None
    """Configuration name of a Hugging Face data set, such as `main`; its own default where absent."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    revision: str | None = None
    """Git revision of a Hugging Face data set; the default branch where absent."""
    format: Literal["generic", "gsm8k"] = "generic"
    """`generic` reads the columns named in `fields`; `gsm8k` reads GSM8K's own format (question, answer, `####`)."""
    fields: Fields = Fields()
    """Column names for the `generic` format."""
    limit: PositiveInt | None = None
    """Use only this many problems, from the start of the file; all where absent."""

    @model_validator(mode="after")
    def _one_source(self) -> DatasetSource:
        if (self.name is None) == (self.path is None):
            raise ValueError("give exactly one of `name` (Hugging Face data set) and `path` (local file)")
        if self.path is not None and PurePosixPath(self.path).suffix not in {".jsonl", ".json", ".parquet"}:
            raise ValueError(f"`path` is {self.path!r}: use a .jsonl, .json or .parquet file")
        if self.path is not None and len(self.path) > 4096:
            raise ValueError(f"`path` has {len(self.path)} characters; use at most 4096")
        return self


class Dataset(DatasetSource):
    """The problems to train on."""

    prompt_template: Literal["r1-zero", "chat", "plain"] = "r1-zero"
    """`r1-zero`: the plain template of DeepSeek-R1-Zero; `chat`: the tokenizer's chat template; `plain`: the bare problem."""
    max_prompt_tokens: PositiveInt = 1024
    """Problems with a prompt of more tokens are left out, and counted in the log."""
    max_solution_tokens: PositiveInt = 2048
    """Problems with a solution of more tokens are left out, and counted in the log."""


class Hints(FrozenModel):
    """The hint of each problem: how long it is, and how its length is chosen (arXiv 2509.06923, Alg. 1)."""

    unit: Literal["token", "step"] = "token"
    """Whether a hint ends at any token or only at the end of a step of the solution."""
    target_accuracy: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of rollouts that should succeed; hints grow while fewer do and shrink while more do."""
    rounds: PositiveInt = 4
    """Rounds of rollouts a problem gets in each step (m)."""
    rollouts_per_round: PositiveInt = 8
    """Rollouts in each round (n)."""
    estimator: Literal["shared-ability", "paper"] = "shared-ability"
    """`shared-ability`: posterior that is carried from step to step; `paper`: least squares of Eq. 12 and 13 each round."""
    unhinted_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each problem's rollouts that get no hint under seele, in a baseline group of their own."""
    unhinted_probes: Annotated[int, Field(ge=0)] = 16
    """Extra rollouts a step without any hint, measured (`seele_unhinted_accuracy`) and never trained on."""
    supervision: Literal["all", "none", "high-entropy", "not-below-baseline"] = "all"
    """Hint tokens learnt by cross-entropy: `all` (the paper); `none`; `high-entropy`: those of each hint that the policy is
    least certain of; `not-below-baseline`: all, except of rollouts that earned less than their baseline (arXiv 2512.13095)."""
    high_entropy_share: PositiveFraction = 0.2
    """Share of each hint's tokens that `supervision: high-entropy` learns."""


class Training(FrozenModel):
    """The optimisation: which strategy, how much, how fast."""

    strategy: StrategyName = "seele"
    """Method that decides hints, baselines and token weights; all share the same budget, data and loop."""
    steps: PositiveInt = 400
    """Training steps; each samples `problemsPerStep` problems."""
    problems_per_step: PositiveInt = 256
    """Problems that are rolled out in one step."""
    problems_per_update: PositiveInt = 64
    """Problems in one optimizer update; must divide `problemsPerStep`."""
    learning_rate: PositiveFloat = 1e-6
    """Peak learning rate of AdamW."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over the run, after the warm-up."""
    final_learning_rate_ratio: Fraction = 0.1
    """Learning rate at the end as a share of the peak, for `linear` and `cosine`."""
    warmup_updates: Annotated[int, Field(ge=0)] = 0
    """Optimizer updates over which the learning rate rises from zero."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of AdamW."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of AdamW's moments."""
    max_gradient_norm: PositiveFloat = 1.0
    """Gradients are scaled down to this global norm."""
    clip_epsilon: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Clip range of the probability ratio."""
    kl_coefficient: NonNegativeFloat = 0.001
    """Weight of the KL divergence to the initial model on generated tokens (beta)."""
    hint_loss_coefficient: NonNegativeFloat = 0.001
    """Weight of the cross-entropy on hint tokens (gamma) of strategies seele, uft and fixed_hint."""
    importance_cap: Annotated[float, Field(ge=1.0)] = 2.0
    """Upper bound of the importance weight that corrects differences between the rollout engine and the trainer."""
    advantage_group: Literal["problem", "round"] = "problem"
    """Rollouts of seele whose mean reward is the baseline: all of the problem (the paper), or those of the same round."""
    merge_identical: bool = True
    """Train identical rollouts once with their weights added; the gradient stays the same."""
    tokens_per_micro_batch: PositiveInt = 16384
    """Token budget of one forward and backward pass on one rank, padding included."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random in the run."""
    sft_then_grpo: SftThenGrpo = SftThenGrpo()
    """Options of strategy sft_then_grpo."""
    uft: Uft = Uft()
    """Options of strategy uft."""
    prefix_rft: PrefixRft = PrefixRft()
    """Options of strategy prefix_rft."""
    luffy: Luffy = Luffy()
    """Options of strategy luffy."""
    fixed_hint: FixedHint = FixedHint()
    """Options of strategy fixed_hint."""

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates in one step; at least one, so that what divides by them needs no valid configuration."""
        return max(1, self.problems_per_step // self.problems_per_update)

    @property
    def sft_steps(self) -> int:
        """Steps, the first ones, in which sft_then_grpo trains on solutions."""
        return int(self.sft_then_grpo.sft_share * self.steps + 1e-9)


class DeepSpeed(FrozenModel):
    """Options handed to DeepSpeed."""

    zero_stage: Literal[0, 1, 2, 3] = 1
    """ZeRO stage: what is partitioned over ranks (1 optimizer state, 2 gradients, 3 parameters)."""
    offload_optimizer: Literal["none", "cpu"] = "none"
    """Keep optimizer state in host memory; needs ZeRO stage 1 or higher."""
    offload_parameters: Literal["none", "cpu"] = "none"
    """Keep parameters in host memory; needs ZeRO stage 3."""
    overrides: dict[str, Any] = {}
    """Further keys merged into DeepSpeed's JSON configuration, for what has no field here."""

    @model_validator(mode="after")
    def _compatible(self) -> DeepSpeed:
        if self.offload_optimizer == "cpu" and self.zero_stage == 0:
            raise ValueError("`offloadOptimizer: cpu` needs `zeroStage` 1, 2 or 3, and it is 0")
        if self.offload_parameters == "cpu" and self.zero_stage != 3:
            raise ValueError(f"`offloadParameters: cpu` needs `zeroStage: 3`, and it is {self.zero_stage}")
        return self


class Trainer(FrozenModel):
    """The gang of trainer processes."""

    replicas: Replicas = 1
    """Trainer pods."""
    processes_per_replica: PositiveInt = 1
    """Trainer processes in each pod, usually one per GPU."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed options."""

    @property
    def world_size(self) -> int:
        """Number of trainer processes in all pods."""
        return self.replicas * self.processes_per_replica


class RolloutOptions(FrozenModel):
    """How completions are sampled, and how the servers that sample them are talked to."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """`vllm`: servers in pods of their own; `transformers`: inside the first trainer process, for tests and debugging."""
    replicas: Replicas = 1
    """Rollout servers."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature in training."""
    max_completion_tokens: PositiveInt = 2048
    """Longest completion, in tokens; the hint is not counted."""
    max_concurrent_problems: PositiveInt = 256
    """Problems in flight at once, over all servers."""
    request_timeout_seconds: PositiveFloat = 600.0
    """Time limit of one request to a server, in seconds."""
    server_start_timeout_seconds: PositiveFloat = 900.0
    """How long to wait for the servers to come up, in seconds; afterwards the run fails."""
    server_retry_timeout_seconds: PositiveFloat = 300.0
    """How long to wait for one server to come back when all are gone, in seconds; afterwards the run fails."""
    sync_timeout_seconds: PositiveFloat = 600.0
    """Time limit for one server to take new weights, in seconds."""
    weight_transport: Literal["directory"] = "directory"
    """How weights reach the servers: `directory` writes safetensors to the shared volume and has each server reload them."""
    untie_embeddings: bool = True
    """Hand the servers a model whose output head is a copy of its embedding. vLLM reloads a tied one wrongly."""
    canary_tolerance: PositiveFloat | None = None
    """Largest mean difference of a canary prompt's log-probabilities after a sync; by dtype where absent (1e-2 or 0.15)."""


class Verifier(FrozenModel):
    """How completions are checked against the answer."""

    method: Literal["math", "exact"] = "math"
    """`math`: symbolic comparison with math-verify; `exact`: the extracted answers must be the same text."""
    workers: PositiveInt = 2
    """Worker processes that check answers."""
    timeout_seconds: PositiveFloat = 10.0
    """Time limit for one check, in seconds; a worker that exceeds it is killed and the check counted as timed out."""


class Benchmark(DatasetSource):
    """A set of held-out problems, answered without hints."""

    title: Annotated[str, WithJsonSchema({"type": "string", "maxLength": 63})]
    """Name in metrics and reports, such as `gsm8k`."""
    samples: Annotated[int, Field(ge=0)] = 0
    """Sampled answers a problem for avg@k (k); 0 measures greedy pass@1 only."""


class Evaluation(FrozenModel):
    """Held-out evaluation, without hints, during training."""

    every_steps: Annotated[int, Field(ge=0)] = 20
    """Steps between evaluations; 0 evaluates only before and after the run."""
    benchmarks: Annotated[tuple[Benchmark, ...], Field(max_length=64)] = ()
    """What to evaluate on."""
    temperature: PositiveFloat = 0.6
    """Sampling temperature for avg@k."""
    max_completion_tokens: PositiveInt | None = None
    """Longest completion in tokens; as in training where absent."""

    @model_validator(mode="after")
    def _distinct_titles(self) -> Evaluation:
        titles = [benchmark.title for benchmark in self.benchmarks]
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise ValueError(f"two benchmarks have the title {twice[0]!r}: give each its own")
        return self


class Checkpoints(FrozenModel):
    """When the whole state of a run is saved."""

    every_steps: PositiveInt = 20
    """Steps between checkpoints; a run that is killed goes on from the last one."""
    keep: PositiveInt = 2
    """Checkpoints kept; older ones are deleted."""


class WandB(FrozenModel):
    """Weights & Biases."""

    project: str
    """Project name."""
    entity: str | None = None
    """Team or user name; that of the API key where absent."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the run's folder for a later `wandb sync`."""


class MLflow(FrozenModel):
    """MLflow."""

    tracking_uri: str
    """Address of the tracking server, or file:// and a folder."""
    experiment: str
    """Experiment name."""


class Observability(FrozenModel):
    """Where metrics go, besides Prometheus and metrics.jsonl, which always get them."""

    tensorboard: bool = True
    """Write TensorBoard event files to the run's folder."""
    wandb: WandB | None = None
    """Send metrics to Weights & Biases."""
    mlflow: MLflow | None = None
    """Send metrics to MLflow."""
    sample_rollouts_per_step: Annotated[int, Field(ge=0)] = 4
    """Rollouts written to rollouts.jsonl each step, with the hint marked."""


class TrainerConfig(FrozenModel):
    """Everything a trainer pod reads from its config.yaml."""

    name: str
    """Name of the run."""
    model: Model
    dataset: Dataset
    training: Training = Training()
    hints: Hints = Hints()
    trainer: Trainer = Trainer()
    rollout: RolloutOptions = RolloutOptions()
    verifier: Verifier = Verifier()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    observability: Observability = Observability()

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not name:
            raise ValueError("the run has no name: set metadata.name")
        return name
