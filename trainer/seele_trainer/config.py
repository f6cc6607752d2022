"""The configuration that a trainer reads; importable without torch.

SeeleRun embeds these models: `kubectl explain` shows the descriptions. Defaults are those of arXiv 2509.06923.
"""

from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from seele_trainer.deepspeed_options import DeepSpeed
from seele_trainer.frozen_model import (
    Fraction,
    FrozenModel,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Replicas,
)
from seele_trainer.methods import METHODS, FixedHint, Luffy, Method, PrefixRft, SftThenGrpo, StrategyName, Uft


class Model(FrozenModel):
    """The language model to train."""

    name: Annotated[str, Field(min_length=1)]
    """Hugging Face model ID, or a folder with config.json, safetensors and tokenizer."""
    revision: str | None = None
    """Git revision on the Hugging Face Hub. The default branch if unset."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Floating-point type of the forward pass, in the trainer and in the rollout servers."""
    context_length: PositiveInt | None = None
    """Longest prompt plus completion, in tokens. The model's own limit if unset."""
    trust_remote_code: bool = False
    """Run Python code that ships with the model."""


class Fields(FrozenModel):
    """Column names of a data set."""

    problem: str = "problem"
    """Column with the text of the problem."""
    solution: str | None = "solution"
    """Column with the worked solution, from which hints are cut. Methods that read no solutions work without it."""
    answer: str | None = None
    """Column with the final answer. Extracted from the solution if unset."""
    steps: str | None = None
    """Column with the solution as a list of steps. The solution is split at line breaks if unset."""
    id: str | None = None
    """Column with a unique ID, a text or a number. The row number if unset."""


ONE_SOURCE = "give exactly one of `name` (Hugging Face data set) and `path` (local file)"
DISTINCT_TITLES = "two benchmarks have the same title; give each its own"
DATA_FORMATS = "is not a .jsonl, .json or .parquet file; convert it to one of these, or give another"
DATA_SUFFIXES = (".jsonl", ".json", ".parquet")


def _data_file(path: str) -> str:
    if PurePosixPath(path).suffix not in DATA_SUFFIXES:
        raise ValueError(DATA_FORMATS)
    return path


class DatasetSource(FrozenModel):
    """Where problems come from: a data set on the Hugging Face Hub, or a local JSONL or Parquet file."""

    name: str | None = None
    """Hugging Face data set ID. Set either this or `path`."""
    path: Annotated[str, Field(max_length=4096), AfterValidator(_data_file)] | None = None
    """Local .jsonl, .json or .parquet file. Set either this or `name`."""
    subset: str | None = None
    """Configuration name of a Hugging Face data set, such as `main`. The data set's default if unset."""
    split: str = "train"
    """Split of a Hugging Face data set."""
    revision: str | None = None
    """Git revision of a Hugging Face data set. The default branch if unset."""
    format: Literal["generic", "gsm8k"] = "generic"
    """`generic`: the columns named in `fields`; `gsm8k`: the format of GSM8K (question, answer, `####`)."""
    fields: Fields = Fields()
    """Column names for the `generic` format."""
    limit: PositiveInt | None = None
    """Use only this many problems, from the start of the file. Unlimited if unset."""

    @model_validator(mode="after")
    def _one_source(self) -> "DatasetSource":
        if (self.name is None) == (self.path is None):
            raise ValueError(ONE_SOURCE)
        return self


class Dataset(DatasetSource):
    """The problems to train on."""

    prompt_template: Literal["r1-zero", "chat", "plain"] = "r1-zero"
    """`r1-zero`: the plain template of DeepSeek-R1-Zero; `chat`: the tokenizer's chat template; `plain`: the problem alone."""
    max_prompt_tokens: PositiveInt = 1024
    """Longest prompt, in tokens. Problems whose prompt is longer are skipped and counted in the log."""
    max_solution_tokens: PositiveInt = 2048
    """Longest solution, in tokens. Problems whose solution is longer are skipped and counted in the log."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """What to do with rows that cannot be used. `fail`: refuse the run; `skip`: count them and name the first in the log."""


class Hints(FrozenModel):
    """How the length of each problem's hint is chosen (arXiv 2509.06923, Alg. 1)."""

    unit: Literal["token", "step"] = "token"
    """Whether a hint may end at any token, or only at the end of a solution step."""
    target_accuracy: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5
    """Share of rollouts that should succeed. Hints grow while fewer do, and shrink while more do."""
    rounds: PositiveInt = 4
    """Rounds of rollouts per problem in each step (m)."""
    rollouts_per_round: PositiveInt = 8
    """Rollouts in each round (n)."""
    estimator: Literal["shared-ability", "paper"] = "shared-ability"
    """`shared-ability`: a posterior carried from step to step; `paper`: least squares of Eq. 12 and 13 in each round."""
    unhinted_share: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Share of each problem's rollouts that get no hint with strategy seele. They have their own baseline."""
    unhinted_probes: NonNegativeInt = 16
    """Extra rollouts per step without a hint, measured (`seele_unhinted_accuracy`) but never trained on."""
    supervision: Literal["all", "none", "high-entropy", "not-below-baseline"] = "all"
    """Hint tokens that are learned by cross-entropy. `all`: as in the paper; `none`; `high-entropy`: those of each hint that
    the policy is least certain of; `not-below-baseline`: all but those of rollouts below their baseline (arXiv 2512.13095)."""
    high_entropy_share: PositiveFraction = 0.2
    """Share of each hint's tokens that are learned with `supervision: high-entropy`."""


class Training(FrozenModel):
    """How the model is trained: strategy, amount and learning rate."""

    strategy: StrategyName = "seele"
    """Training method: decides hints, baselines and token weights. Budget, data and loop are the same for all."""
    steps: PositiveInt = 400
    """Training steps. Each one samples `problemsPerStep` problems."""
    problems_per_step: PositiveInt = 256
    """Problems per training step."""
    problems_per_update: PositiveInt = 64
    """Problems per optimizer update. Must divide `problemsPerStep`."""
    learning_rate: PositiveFloat = 1e-6
    """Peak learning rate of AdamW."""
    learning_rate_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate changes over the run, after the warm-up."""
    final_learning_rate_ratio: Fraction = 0.1
    """Final learning rate as a share of the peak, for `linear` and `cosine`."""
    warmup_updates: NonNegativeInt = 0
    """Optimizer updates over which the learning rate rises from zero to its peak."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of AdamW."""
    adam_betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """Decay rates of AdamW's moment estimates."""
    max_gradient_norm: PositiveFloat = 1.0
    """Global norm to which larger gradients are scaled down."""
    clip_epsilon: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Clipping range of the probability ratio."""
    kl_coefficient: NonNegativeFloat = 0.001
    """Weight of the KL divergence to the initial model on generated tokens (beta)."""
    hint_loss_coefficient: NonNegativeFloat = 0.001
    """Weight of the cross-entropy on hint tokens (gamma), for strategies seele, uft and fixed_hint."""
    importance_cap: Annotated[float, Field(ge=1.0)] = 2.0
    """Upper bound of the importance weight that corrects for differences between rollout engine and trainer."""
    advantage_group: Literal["problem", "round"] = "problem"
    """Rollouts whose mean reward is the baseline of strategy seele: the problem's (as in the paper), or the round's."""
    merge_identical: bool = True
    """Train on identical rollouts once, with their weights added up. The gradient stays the same."""
    tokens_per_micro_batch: PositiveInt = 16384
    """Token budget of one forward and backward pass on one rank, including padding."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass, which saves memory."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of all randomness in the run."""
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
    def method(self) -> Method:
        """Facts about the strategy."""
        return METHODS[self.strategy]

    @property
    def updates_per_step(self) -> int:
        """Optimizer updates per step; at least one, so that callers can divide by it before validation."""
        return max(1, self.problems_per_step // self.problems_per_update)

    @property
    def sft_steps(self) -> int:
        """Initial steps in which sft_then_grpo trains on solutions."""
        return int(self.sft_then_grpo.sft_share * self.steps + 1e-9)


class Trainer(FrozenModel):
    """The gang of trainer processes."""

    replicas: Replicas = 1
    """Number of trainer pods."""
    processes_per_replica: PositiveInt = 1
    """Trainer processes per pod, usually one per GPU."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed options."""

    @property
    def world_size(self) -> int:
        """Number of trainer processes in all pods."""
        return self.replicas * self.processes_per_replica


StopString = Annotated[str, Field(min_length=1, max_length=256)]
"""Text that ends a completion."""


class RolloutOptions(FrozenModel):
    """How completions are sampled, and how the trainer talks to the rollout servers."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """`vllm`: servers in separate pods; `transformers`: inside the first trainer process, for tests and debugging."""
    replicas: Replicas = 1
    """Number of rollout servers."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature in training."""
    max_completion_tokens: PositiveInt = 2048
    """Longest completion, in tokens, not counting the hint."""
    # vLLM takes four, like OpenAI.
    stop: Annotated[tuple[StopString, ...], Field(max_length=4)] | None = None
    """Strings that end a completion, which is graded on the text before them; `[]` for none. The beginning of the template's
    next question if unset: a line break and `User:` for `r1-zero`, none for `chat` and `plain`."""
    max_concurrent_problems: PositiveInt = 256
    """Problems in flight at the same time, across all servers."""
    request_timeout_seconds: PositiveFloat = 600.0
    """Time limit of a request to a server, in seconds."""
    server_start_timeout_seconds: PositiveFloat = 900.0
    """How long to wait for the servers to start, in seconds. Then the run fails."""
    server_retry_timeout_seconds: PositiveFloat = 300.0
    """How long to wait for a server to come back when all are gone, in seconds. Then the run fails."""
    sync_timeout_seconds: PositiveFloat = 600.0
    """Time limit for a server to load new weights, in seconds."""
    weight_transport: Literal["directory"] = "directory"
    """How weights reach the servers. `directory`: as safetensors on the shared volume, which each server reloads."""
    untie_embeddings: bool = True
    """Serve a model whose output head is a copy of its embedding. vLLM reloads tied embeddings incorrectly."""
    canary_tolerance: PositiveFloat | None = None
    """Largest mean difference of a canary prompt's log-probabilities after a sync. Depends on dtype if unset (1e-2 or 0.15)."""


class Verifier(FrozenModel):
    """How completions are checked against the answer."""

    method: Literal["math", "exact"] = "math"
    """`math`: symbolic comparison with math-verify; `exact`: the extracted answers must be identical text."""
    workers: PositiveInt | None = None
    """Worker processes that check answers. One for each available core, at most 32, if unset."""
    timeout_seconds: PositiveFloat = 10.0
    """Time limit of a check, in seconds. A worker that exceeds it is killed, and the check counts as timed out."""


Truncated: TypeAlias = Literal["zero", "grade", "mask"]


class Rewards(FrozenModel):
    """What completions earn: 1 if the verifier finds their answer right, and 0 otherwise."""

    truncated: Truncated = "zero"
    """Completions that hit the length limit. `zero`: earn 0 unless the answer is marked, as by a box; `grade`: like any
    other; `mask`: as with `zero`, and their tokens are left out of the loss (overlong filtering, arXiv 2503.14476)."""


class Benchmark(DatasetSource):
    """A set of held-out problems that are answered without hints."""

    title: Annotated[str, WithJsonSchema({"type": "string", "maxLength": 63})]
    """Name in metrics and reports, such as `gsm8k`."""
    samples: NonNegativeInt = 0
    """Sampled answers per problem for avg@k (k). With 0 only greedy pass@1 is measured."""


class Evaluation(FrozenModel):
    """Held-out evaluation without hints during training."""

    every_steps: NonNegativeInt = 20
    """Steps between evaluations. With 0 only the initial and the final model are evaluated."""
    benchmarks: Annotated[tuple[Benchmark, ...], Field(max_length=64)] = ()
    """Benchmarks to evaluate on."""
    temperature: PositiveFloat = 0.6
    """Sampling temperature for avg@k."""
    max_completion_tokens: PositiveInt | None = None
    """Longest completion, in tokens. As in training if unset."""

    @model_validator(mode="after")
    def _distinct_titles(self) -> "Evaluation":
        titles = [benchmark.title for benchmark in self.benchmarks]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f'{DISTINCT_TITLES}, not "{twice[0]}" twice')
        return self


class Checkpoints(FrozenModel):
    """When the complete state of a run is saved."""

    every_steps: PositiveInt = 20
    """Steps between checkpoints. A run that is killed resumes from the latest one."""
    every_minutes: PositiveFloat = 30.0
    """Minutes after which the next finished step is saved too."""
    keep: PositiveInt = 2
    """Number of checkpoints to keep. Older ones are deleted."""


class WandB(FrozenModel):
    """Weights & Biases."""

    project: str
    """Project name."""
    entity: str | None = None
    """Team or user name. The owner of the API key if unset."""
    mode: Literal["online", "offline"] = "online"
    """`offline` writes to the run's folder, for `wandb sync` later."""


class MLflow(FrozenModel):
    """MLflow."""

    tracking_uri: str
    """Address of the tracking server, or a folder as file:// URL."""
    experiment: str
    """Experiment name."""


class Observability(FrozenModel):
    """Where metrics are sent, in addition to Prometheus and metrics.jsonl."""

    tensorboard: bool = True
    """Write TensorBoard event files to the run's folder."""
    wandb: WandB | None = None
    """Send metrics to Weights & Biases."""
    mlflow: MLflow | None = None
    """Send metrics to MLflow."""
    sample_rollouts_per_step: NonNegativeInt = 4
    """Rollouts to write to rollouts.jsonl in each step, with the hint marked."""


class TrainerConfig(FrozenModel):
    """The config.yaml of a trainer pod."""

    name: Annotated[str, Field(min_length=1)]
    """Name of the run."""
    model: Model
    dataset: Dataset
    training: Training = Training()
    hints: Hints = Hints()
    trainer: Trainer = Trainer()
    rollout: RolloutOptions = RolloutOptions()
    verifier: Verifier = Verifier()
    rewards: Rewards = Rewards()
    evaluation: Evaluation = Evaluation()
    checkpoints: Checkpoints = Checkpoints()
    observability: Observability = Observability()
