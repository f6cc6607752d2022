"""The record of a step follows from its rollouts and updates, and so does what the step gains on its problems."""

from dataclasses import replace

import numpy as np
import pytest

from seele_trainer.collect import PROBE_ROUND, Collected
from seele_trainer.hints.controller import ControllerSummary
from seele_trainer.learner.learner import UpdateStats
from seele_trainer.rollout.protocol import Completion, WeightSync
from seele_trainer.run_folder.records import StepRecord, Tokens
from seele_trainer.step_record import (
    MAX_GROUPS,
    StepFacts,
    descents,
    measured_groups,
    sample_rollouts,
    sequences,
    summarise,
)
from seele_trainer.strategies import build_strategy
from tests.support.strategy_cases import config, rollout


def update(**changes: float) -> UpdateStats:
    values = {
        "policy_loss": 0.1,
        "supervised_loss": 2.0,
        "kl_loss": 0.01,
        "total_loss": 0.102,
        "gradient_norm": 1.0,
        "clip_fraction": 0.0,
        "mismatch_kl": 0.001,
        "learning_rate": 1e-3,
        "tokens_trained": 50,
        "tokens_in_loss": 70,
        "seconds": 1.0,
        "applied": True,
        **changes,
    }
    return UpdateStats(**values)  # type: ignore[arg-type]


CONFIG = config(rounds=2, rollouts_per_round=2)
TRUNCATED = replace(rollout(2, 1.0, 4), completion=Completion((30, 31), (-0.5, -0.5), "length", 4))
COLLECTED = Collected(
    rollouts=[
        [rollout(1, 1.0, 10), rollout(1, 1.0, 10), rollout(2, 0.0, 4), TRUNCATED],
        [rollout(1, 0.0, 8), rollout(1, None, 8), rollout(2, 0.0, 10), rollout(2, 0.0, 10)],
    ],
    probes=[rollout(PROBE_ROUND, 1.0), rollout(PROBE_ROUND, 0.0), rollout(PROBE_ROUND, None)],
    waiting_seconds=0.5,
)
FACTS = StepFacts(
    step=5,
    time=1e9,
    updates=[update(), update(policy_loss=0.3, mismatch_kl=0.5, learning_rate=5e-4, gradient_norm=3.0)],
    sync=WeightSync(5, 0.2, 1e-6, 1),
    hint_summary=ControllerSummary((4.0, 5.0), (-0.5, -0.4), (0.0, 0.1), 0.02, 1),
    requests={"ok": 4, "retried": 0, "failed": 0},
    phase_seconds={"rollout": 2.5, "verify": 0.5, "train": 1.0},
    step_seconds=4.5,
)


def test_accuracies_exclude_unverified_rollouts_and_count_them() -> None:
    record = summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS)
    assert record.reward == pytest.approx(3 / 7)
    assert record.accuracy_by_round == pytest.approx((2 / 3, 1 / 4))
    assert record.unhinted_accuracy == pytest.approx(0.5)
    assert record.verifier_timeouts == 1
    assert record.rollouts == 8


def test_hint_rates_include_all_rollouts_and_fill_the_histogram() -> None:
    record = summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS)
    assert record.hint_rate == pytest.approx((1 + 1 + 0.4 + 0.4 + 0.8 + 0.8 + 1 + 1) / 8)
    assert record.hint_rate_by_round == pytest.approx((0.9, 0.7))
    assert sum(record.hint_rate_histogram.counts) == 8
    assert record.hint_rate_histogram.counts[-1] == 4


def test_groups_show_what_the_step_can_teach() -> None:
    record = summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS)
    # Accuracy 3/4 in the first problem; nothing right, and so nothing to learn, in the second.
    assert record.learning_efficiency == pytest.approx(4 * 0.75 * 0.25 / 2)
    assert record.zero_gradient_groups == pytest.approx(0.5)


def test_losses_are_means_over_updates_and_the_mismatch_is_that_of_the_first() -> None:
    record = summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS)
    assert record.losses.policy == pytest.approx(0.2)
    assert record.gradient_norm == pytest.approx(2.0)
    assert record.mismatch_kl == pytest.approx(0.001)
    assert record.learning_rate == pytest.approx(5e-4)


def test_tokens_are_counted_by_kind() -> None:
    tokens = summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS).tokens
    assert tokens == Tokens(prompt=24, hint=64, generated=16, trained=100, loss=140)
    assert summarise(CONFIG, build_strategy(CONFIG), COLLECTED, FACTS).truncated_completions == pytest.approx(1 / 8)


def test_rounds_and_probes_without_samples_are_null_not_zero() -> None:
    grpo = config("grpo")
    record = summarise(grpo, build_strategy(grpo), Collected([[rollout(1, 1.0)]], [], 0.0), FACTS)
    assert record.accuracy_by_round == (1.0,)
    assert record.unhinted_accuracy is None
    only_second = Collected([[rollout(2, 1.0)]], [], 0.0)
    assert summarise(CONFIG, build_strategy(CONFIG), only_second, FACTS).accuracy_by_round == (None, 1.0)


def test_a_step_without_rollouts_has_null_for_their_values() -> None:
    sft = config("sft")
    record = summarise(sft, build_strategy(sft), Collected([[], []], COLLECTED.probes, 0.0), FACTS)
    measured = (record.reward, record.hint_rate, record.learning_efficiency, record.zero_gradient_groups)
    assert (*measured, record.truncated_completions) == (None,) * 5
    assert (record.accuracy_by_round, record.hint_rate_by_round, record.rollouts) == ((), (), 0)
    assert record.unhinted_accuracy == pytest.approx(0.5)
    assert StepRecord.model_validate_json(record.model_dump_json(by_alias=True)) == record


def test_a_solution_in_a_group_counts_in_what_the_group_can_teach_but_not_as_a_rollout() -> None:
    luffy = config("luffy")
    failed = Collected([[rollout(1, 0.0)] * 3], [], 0.0)
    record = summarise(luffy, build_strategy(luffy), failed, FACTS)
    # One success of four, the solution, so the group has a gradient.
    assert (record.learning_efficiency, record.zero_gradient_groups) == (pytest.approx(0.75), 0.0)
    assert (record.reward, record.accuracy_by_round, record.rollouts) == (0.0, (0.0,), 3)


def test_sample_rollouts_separate_the_hint_from_the_completion() -> None:
    sample, _ = sample_rollouts(COLLECTED, 5, 3, lambda tokens: "/".join(map(str, tokens)))
    assert (sample.prompt, sample.hint, sample.completion) == ("1/2/3", "10/11/12/13", "30/31")
    assert (sample.round, sample.rate, sample.reward) == (2, 0.4, 1.0)


# Gains, checked against numbers computed by hand and against the theory


def test_only_generated_tokens_count() -> None:
    group = [rollout(1, 1.0, 1, (7, 8)), rollout(1, 0.0, 2, (7, 8, 9))]
    measured = measured_groups([group])
    assert sequences(measured) == [[1, 2, 3, 10, 7, 8], [1, 2, 3, 10, 11, 7, 8, 9]]
    before = [np.zeros(5, dtype=np.float32), np.zeros(7, dtype=np.float32)]
    # Advantages are 1/2 and -1/2. Prompt and hint are not part of the policy gradient.
    after = [np.array([9, 9, 9, 0.5, 0.25]), np.array([9, 9, 9, 9, -0.25, 0.5, -1.0])]
    (one,) = descents(measured, before, [row.astype(np.float32) for row in after])
    assert one.accuracy == 0.5
    assert one.descent == pytest.approx((0.5 * 0.75 - 0.5 * -0.75) / 2)


def test_groups_without_advantages_are_skipped_and_their_number_is_limited() -> None:
    mixed = [rollout(1, 1.0), rollout(1, 0.0)]
    same = [rollout(1, 1.0), rollout(1, 1.0)]
    assert [group.accuracy for group in measured_groups([same, mixed, [rollout(1, 0.0)]])] == [0.5]
    assert len(measured_groups([mixed] * (MAX_GROUPS + 5))) == MAX_GROUPS
    assert measured_groups([]) == []
    assert descents([], [], []) == ()


@pytest.mark.parametrize("right", range(1, 8))
def test_a_policy_of_two_answers_gains_what_the_theory_says(right: int) -> None:
    # The right answer has one logit z: a step dz changes log a by (1-a) dz and log (1-a) by -a dz.
    accuracy, dz = right / 8, 1e-3
    group = [rollout(1, float(index < right), tokens=(7,)) for index in range(8)]
    measured = measured_groups([group])
    before = [np.zeros(3, dtype=np.float32)] * 8
    after = [
        np.array([0, 0, ((1 - accuracy) if index < right else -accuracy) * dz], dtype=np.float32) for index in range(8)
    ]
    (one,) = descents(measured, before, after)
    assert one.descent == pytest.approx(accuracy * (1 - accuracy) * dz, rel=1e-5)
