"""What a step gains on its problems, checked against numbers computed by hand and against the theory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from seele_trainer.data.problem import Problem, TokenizedProblem
from seele_trainer.rollout.protocol import Completion
from seele_trainer.step_record import MOST_GROUPS, descents, probe, sequences
from seele_trainer.strategies.base import Rollout

pytestmark = pytest.mark.unit

PROBLEM = TokenizedProblem(Problem("p", "q", "s", "a"), (1, 2), (3, 4, 5), 3, (1, 2, 3))


def rollout(reward: float | None, tokens: Sequence[int] = (7, 8), hint: int = 1) -> Rollout:
    logprobs = tuple(-0.5 for _ in tokens)
    return Rollout(PROBLEM, 1, hint, hint / 3, Completion(tuple(tokens), logprobs, "stop", 0), reward)


def test_only_generated_tokens_count() -> None:
    group = [rollout(1.0), rollout(0.0, (7, 8, 9), hint=2)]
    probed = probe([group])
    assert sequences(probed) == [[1, 2, 3, 7, 8], [1, 2, 3, 4, 7, 8, 9]]
    before = [np.zeros(4, dtype=np.float32), np.zeros(6, dtype=np.float32)]
    # Advantages are 1/2 and -1/2. Prompt and hint are not part of the policy gradient.
    after = [np.array([9, 9, 0.5, 0.25]), np.array([9, 9, 9, -0.25, 0.5, -1.0])]
    (one,) = descents(probed, before, [row.astype(np.float32) for row in after])
    assert one.accuracy == 0.5
    assert one.descent == pytest.approx((0.5 * 0.75 - 0.5 * -0.75) / 2)


def test_groups_without_advantages_are_skipped_and_their_number_is_limited() -> None:
    telling = [rollout(1.0), rollout(0.0)]
    same = [rollout(1.0), rollout(1.0)]
    assert [group.accuracy for group in probe([same, telling, [rollout(0.0)]])] == [0.5]
    assert len(probe([telling] * (MOST_GROUPS + 5))) == MOST_GROUPS
    assert probe([]) == []
    assert descents([], [], []) == ()


@pytest.mark.parametrize("right", range(1, 8))
def test_a_policy_of_two_answers_gains_what_the_theory_says(right: int) -> None:
    # The right answer has one logit z: a step dz changes log a by (1-a) dz and log (1-a) by -a dz.
    accuracy, dz = right / 8, 1e-3
    group = [rollout(float(index < right), (7,)) for index in range(8)]
    probed = probe([group])
    before = [np.zeros(3, dtype=np.float32)] * 8
    after = [
        np.array([0, 0, ((1 - accuracy) if index < right else -accuracy) * dz], dtype=np.float32) for index in range(8)
    ]
    (one,) = descents(probed, before, after)
    assert one.descent == pytest.approx(accuracy * (1 - accuracy) * dz, rel=1e-5)
