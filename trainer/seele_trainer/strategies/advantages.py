"""From rewards to weighted sequences: what every strategy with a policy gradient shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from seele_trainer.strategies.base import Rollout, Sample


def group_by(rollouts: Sequence[Rollout], key: Callable[[Rollout], Hashable]) -> list[list[Rollout]]:
    """Split rollouts by key, keeping order. Rollouts that could not be verified are in no group."""
    groups: dict[Hashable, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        if rollout.reward is not None:
            groups[key(rollout)].append(rollout)
    return list(groups.values())


def rewards(group: Sequence[Rollout]) -> NDArray[np.float64]:
    """Rewards of verified rollouts, shape (rollouts,)."""
    return np.array([rollout.reward for rollout in group], dtype=np.float64)


def dr_grpo_advantages(group: Sequence[Rollout]) -> NDArray[np.float64]:
    """Reward minus the group's mean, not divided by its deviation (Dr.GRPO, arXiv 2503.20783); shape (rollouts,)."""
    earned = rewards(group)
    return earned - np.float64(earned.mean())


def policy_sample(rollout: Rollout, advantage: float, *, supervise_hint: bool) -> Sample:
    """The training sequence of a rollout: prompt, hint, completion.

    Generated tokens get the advantage; hint tokens never do, since a failed completion would punish a correct hint. With
    `supervise_hint` they are learnt by cross-entropy instead (Eq. 47 of arXiv 2509.06923).
    """
    problem, completion = rollout.problem, rollout.completion
    hint_start = len(problem.prompt)
    generated_start = hint_start + rollout.hint_length
    tokens = np.array([*problem.prompt, *problem.hint(rollout.hint_length), *completion.tokens], dtype=np.int64)
    policy_mask = np.arange(len(tokens)) >= generated_start
    supervised = np.zeros(len(tokens), dtype=np.float32)
    if supervise_hint:
        supervised[hint_start:generated_start] = 1.0
    behaviour = np.zeros(len(tokens), dtype=np.float32)
    behaviour[generated_start:] = completion.logprobs
    return Sample(
        tokens=tokens,
        policy_mask=policy_mask,
        advantage=np.where(policy_mask, np.float32(advantage), np.float32(0.0)),
        supervised=supervised,
        behaviour_logprobs=behaviour,
    )
