"""The records of a run, such as one StepRecord for each training step. Their JSON keys are camelCase."""

from typing import Literal

from pydantic import AliasChoices, Field

from seele_trainer.frozen_model import FrozenModel

StepPhase = Literal["rollout", "verify", "train", "sync", "eval", "checkpoint"]
"""What a step's time is spent on; sampling and verification overlap."""
TrainerPhase = Literal["starting", "rollout", "train", "sync", "eval", "checkpoint", "done", "failed"]
"""What a trainer is doing."""


class Histogram(FrozenModel):
    """Counts of values between `edges`; `counts` is one shorter than `edges`."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]


class Losses(FrozenModel):
    """Terms of the loss, each over its own global denominator, before their coefficients; `total` after them.

    `supervised` is the cross-entropy of hint tokens, or of whole solutions under SFT. Journals of earlier
    versions call it `hint`.
    """

    policy: float
    supervised: float = Field(validation_alias=AliasChoices("supervised", "hint"))
    kl: float
    total: float


class Tokens(FrozenModel):
    """Tokens of one step, by kind.

    `trained` counts tokens in forward passes, after identical rollouts are merged, without padding; `loss` those that the
    loss is a mean of, before merging. Journals of earlier versions do not count `loss`.
    """

    prompt: int
    hint: int
    generated: int
    trained: int
    loss: int = 0


class IrtParameters(FrozenModel):
    """Fitted curves of this step's problems (Eq. 12): discrimination k, ability mu, guessing b, one value per problem."""

    discrimination: tuple[float, ...]
    ability: tuple[float, ...]
    guessing: tuple[float, ...]


class Descent(FrozenModel):
    """What a step's updates gained on one baseline group: the mean over its rollouts, in nats, of the advantage times the
    increase of the rollout's log-probability."""

    accuracy: float
    descent: float


class StepRecord(FrozenModel):
    """One line of metrics.jsonl. Means are over this step's rollouts; values that were not measured are null."""

    step: int
    time: float
    """Seconds since the epoch."""
    policy_version: int
    reward: float | None
    """Mean reward of all verified rollouts; like all values about rollouts, null if nothing was sampled."""
    accuracy_by_round: tuple[float | None, ...]
    hint_rate: float | None
    hint_rate_by_round: tuple[float | None, ...]
    hint_rate_histogram: Histogram
    target_accuracy: float
    unhinted_accuracy: float | None
    """Accuracy of this step's unhinted probes."""
    learning_efficiency: float | None
    """Mean over groups of 4a(1-a)."""
    zero_gradient_groups: float | None
    """Share of baseline groups in which all rewards are equal."""
    losses: Losses
    gradient_norm: float
    clip_fraction: float
    learning_rate: float
    mismatch_kl: float
    """Mean k3 estimate of KL(engine || trainer) on generated tokens, before the first update of the step."""
    truncated_completions: float | None
    """Share of completions that hit the length limit."""
    tokens: Tokens
    rollouts: int
    verifier_timeouts: int
    descents: tuple[Descent, ...] = ()
    """Of groups with unequal rewards, in steps that are followed by an evaluation; empty in all other steps."""
    irt: IrtParameters | None
    irt_fit_seconds: float
    irt_fit_fallbacks: int
    weight_sync_seconds: float
    canary_difference: float
    unproven_syncs: int = 0
    """Engines that the canary does not show to have followed from the version before. Older journals do not count them."""
    rollout_requests: dict[str, int]
    """Requests of this step by outcome: ok, retried, failed."""
    phase_seconds: dict[StepPhase, float]
    """Wall-clock seconds of this step by phase; `rollout` includes the verification that overlaps it."""
    step_seconds: float

    @property
    def elapsed_seconds(self) -> float:
        """Wall-clock seconds of the step, including an evaluation and a checkpoint among its phases."""
        return max(self.step_seconds, sum(self.phase_seconds.values()))

    @property
    def training_seconds(self) -> float:
        """Wall-clock seconds of the step without an evaluation."""
        return self.elapsed_seconds - self.phase_seconds.get("eval", 0.0)


class BenchmarkScore(FrozenModel):
    """Result on one benchmark, answered without hints."""

    problems: int
    greedy_accuracy: float
    sampled_accuracy: float | None = None
    """avg@k; null if k is 0."""
    samples: int = 0
    truncated: float = 0.0
    """Share of greedy completions that hit the length limit."""


class EvaluationRecord(FrozenModel):
    """One line of eval.jsonl."""

    step: int
    time: float
    policy_version: int
    seconds: float
    scores: dict[str, BenchmarkScore]

    @property
    def accuracy(self) -> float | None:
        """Mean greedy accuracy over benchmarks; None without benchmarks."""
        accuracies = [score.greedy_accuracy for score in self.scores.values()]
        return sum(accuracies) / len(accuracies) if accuracies else None


class SampleRollout(FrozenModel):
    """One line of rollouts.jsonl: a rollout as text."""

    step: int
    problem_id: str
    round: int
    rate: float
    prompt: str
    hint: str
    completion: str
    reward: float | None


class Progress(FrozenModel):
    """Answer of /progress."""

    name: str
    attempt: int = 1
    """Number of this attempt, from 1."""
    step: int
    steps: int
    phase: TrainerPhase
    reward: float | None = None
    accuracy: float | None = None
    """Latest held-out accuracy without hints; before the first evaluation, that of the probes."""
    accuracy_by_round: tuple[float | None, ...] = ()
    target_accuracy: float | None = None
    hint_rate: float | None = None
    policy_version: int = 0
    tokens_per_second: float | None = None
    phase_seconds: dict[StepPhase, float] = Field(default_factory=dict)
    """Of the last step."""
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    unsaved_step: int | None = None
    """The step that a stop finishes, if its updates have begun, and saves; None if a stop has nothing to save."""
    stop_seconds: float | None = None
    """Seconds that a stop may need until everything is saved, measured or by the model's size."""
    stopping: bool = False
    """Whether a stop was requested."""
    evaluation: dict[str, float] = Field(default_factory=dict)
    """Latest greedy accuracy by benchmark."""
    message: str = ""
