"""What a run writes down: one StepRecord a training step, one EvaluationRecord an evaluation. JSON keys are camelCase."""

from __future__ import annotations

from typing import Literal

from pydantic import AliasChoices, Field

from seele_trainer.frozen_model import FrozenModel

StepPhase = Literal["rollout", "verify", "train", "sync", "eval", "checkpoint"]


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

    `trained` counts real tokens in forward passes, after identical rollouts are merged; `loss` those that the loss is a mean
    of, before that. Journals of earlier versions do not count `loss`.
    """

    prompt: int
    hint: int
    generated: int
    trained: int
    loss: int = 0


class IrtParameters(FrozenModel):
    """Fitted curves of this step's problems (Eq. 12): discrimination k, ability mu, guessing b, one value a problem."""

    discrimination: tuple[float, ...]
    ability: tuple[float, ...]
    guessing: tuple[float, ...]


class Descent(FrozenModel):
    """What a step's updates gained on one baseline group: the mean over its rollouts, in nats, of the advantage times how
    much more likely the rollout has become."""

    accuracy: float
    descent: float


class StepRecord(FrozenModel):
    """One line of metrics.jsonl. Means are over this step's rollouts; `None` and NaN-free: what was not measured is null."""

    step: int
    time: float
    """Seconds since the epoch."""
    policy_version: int
    reward: float | None
    """Mean reward of all rollouts that were verified; null, as what else is about rollouts, where nothing was sampled."""
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
    """Of groups with unequal rewards, in steps after which the policy is evaluated; empty in all others."""
    irt: IrtParameters | None
    irt_fit_seconds: float
    irt_fit_fallbacks: int
    weight_sync_seconds: float
    canary_difference: float
    rollout_requests: dict[str, int]
    """Requests of this step by outcome: ok, retried, failed."""
    phase_seconds: dict[StepPhase, float]
    """Wall-clock seconds of this step by phase; `rollout` includes the verification that overlaps it."""
    step_seconds: float


class BenchmarkScore(FrozenModel):
    """Result on one benchmark, answered without hints."""

    problems: int
    greedy_accuracy: float
    sampled_accuracy: float | None = None
    """avg@k; null where k is 0."""
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


class SampleRollout(FrozenModel):
    """One line of rollouts.jsonl: a rollout a person can read, with the hint marked."""

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
    """Number of the attempt that answers, from 1."""
    step: int
    steps: int
    phase: Literal["starting", "rollout", "train", "sync", "eval", "checkpoint", "done", "failed"]
    reward: float | None = None
    accuracy: float | None = None
    """Latest held-out accuracy without hints; the probes' where nothing was evaluated."""
    accuracy_by_round: tuple[float | None, ...] = ()
    target_accuracy: float | None = None
    hint_rate: float | None = None
    policy_version: int = 0
    tokens_per_second: float | None = None
    phase_seconds: dict[StepPhase, float] = Field(default_factory=dict)
    """Of the last step."""
    eta_seconds: float | None = None
    last_checkpoint_step: int | None = None
    evaluation: dict[str, float] = Field(default_factory=dict)
    """Latest greedy accuracy by benchmark."""
    message: str = ""
