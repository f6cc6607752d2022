"""What SEELE shows of a problem, and the samples that follow from rewards."""

from dataclasses import replace

import numpy as np
import pytest

from seele_trainer.learner.sample import EVERY_TOKEN
from seele_trainer.strategies import build_strategy
from seele_trainer.strategies.seele import UNHINTED
from tests.support.strategy_cases import PROBLEM, config, play, rollout


def test_seele_gives_every_problem_its_rounds_of_rollouts() -> None:
    done = play(build_strategy(config()), reward=1.0)
    assert [r.round for r in done] == [1] * 4 + [2] * 4 + [3] * 4


def test_seele_shortens_the_hint_when_everything_succeeds_and_lengthens_it_when_everything_fails() -> None:
    easy, hard = play(build_strategy(config()), reward=1.0), play(build_strategy(config()), reward=0.0)
    assert easy[-1].hint_length < easy[0].hint_length
    assert hard[-1].hint_length >= hard[0].hint_length
    assert easy[-1].hint_length < hard[-1].hint_length


def test_the_unhinted_share_takes_its_rollouts_evenly_from_the_rounds() -> None:
    done = play(build_strategy(config(unhinted_share=0.25)), reward=0.0)
    assert [r.round for r in done] == [UNHINTED] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert all(r.hint_length == 0 for r in done if r.round == UNHINTED)


def test_unhinted_rollouts_have_their_own_baseline() -> None:
    strategy = build_strategy(config(unhinted_share=0.25))
    rollouts = [rollout(UNHINTED, 0.0), rollout(UNHINTED, 1.0), rollout(1, 1.0), rollout(2, 0.0), rollout(2, 1.0)]
    assert [[r.round for r in group] for group in strategy.baseline_groups(rollouts)] == [[0, 0], [1, 2, 2]]


def test_baseline_is_the_problem_or_the_round_as_configured() -> None:
    rollouts = [rollout(1, 1.0), rollout(1, 1.0), rollout(2, 0.0), rollout(2, 1.0)]
    by_problem = build_strategy(config()).samples(PROBLEM, rollouts)
    by_round = build_strategy(config(training={"advantage_group": "round"})).samples(PROBLEM, rollouts)
    assert [float(sample.advantage[-1]) for sample in by_problem] == [0.25, 0.25, -0.75, 0.25]
    assert [float(sample.advantage[-1]) for sample in by_round] == [0.0, 0.0, -0.5, 0.5]


@pytest.mark.parametrize("strategy", ["seele", "grpo"])
def test_advantages_of_a_problem_sum_to_zero(strategy: str) -> None:
    samples = build_strategy(config(strategy)).samples(
        PROBLEM, [rollout(1, reward) for reward in (1.0, 0.0, 0.0, 1.0, 1.0)]
    )
    assert sum(float(sample.advantage[-1]) for sample in samples) == pytest.approx(0.0, abs=1e-6)


def test_hint_tokens_are_supervised_and_get_no_advantage_while_generated_tokens_get_only_advantage() -> None:
    right, wrong = rollout(1, 1.0, hint_length=4), rollout(1, 0.0, hint_length=4)
    sample, _ = build_strategy(config()).samples(PROBLEM, [right, wrong])
    np.testing.assert_array_equal(sample.tokens, [1, 2, 3, 10, 11, 12, 13, 30, 31])
    np.testing.assert_array_equal(sample.policy_mask, [False] * 7 + [True] * 2)
    np.testing.assert_array_equal(sample.advantage, np.float32([0, 0, 0, 0, 0, 0, 0, 0.5, 0.5]))
    np.testing.assert_array_equal(sample.supervised, np.float32([0, 0, 0, 0.001, 0.001, 0.001, 0.001, 0, 0]))
    np.testing.assert_array_equal(sample.behaviour_logprobs, np.float32([0, 0, 0, 0, 0, 0, 0, -0.5, -0.5]))


def test_unverified_rollouts_are_in_no_mean_and_train_nothing() -> None:
    samples = build_strategy(config()).samples(PROBLEM, [rollout(1, 1.0), rollout(1, None), rollout(1, 0.0)])
    assert [float(sample.advantage[-1]) for sample in samples] == [0.5, -0.5]


def test_a_masked_completion_counts_in_the_baseline_and_for_the_controller_but_is_in_no_loss() -> None:
    failed = rollout(1, 0.0, hint_length=4)
    masked = replace(failed, masked=True)
    strategies = [build_strategy(config()) for _ in range(2)]
    right, cut = strategies[0].samples(PROBLEM, [rollout(1, 1.0, hint_length=4), masked])
    assert float(right.advantage[-1]) == 0.5
    np.testing.assert_array_equal(cut.tokens, [1, 2, 3, 10, 11, 12, 13])
    np.testing.assert_array_equal(cut.supervised, np.float32([0, 0, 0, 0.001, 0.001, 0.001, 0.001]))
    assert not cut.policy_mask.any()
    for strategy, one in zip(strategies, (failed, masked), strict=True):
        strategy.observe(PROBLEM, [one])
    assert strategies[0].state_dict() == strategies[1].state_dict() != build_strategy(config()).state_dict()


def test_a_round_lost_to_the_verifier_tells_the_controller_nothing() -> None:
    strategy = build_strategy(config())
    before = strategy.state_dict()
    strategy.observe(PROBLEM, [rollout(1, None)])
    assert strategy.state_dict() == before


def test_grpo_samples_the_same_budget_without_a_hint_and_supervises_nothing() -> None:
    strategy = build_strategy(config("grpo"))
    done = play(strategy, reward=1.0)
    assert [(r.round, r.hint_length) for r in done] == [(1, 0)] * 12
    assert not any(sample.supervised.any() for sample in strategy.samples(PROBLEM, done))


@pytest.mark.parametrize(
    ("supervision", "weights", "learning"),
    [
        ("all", (0.001, 0.001), (EVERY_TOKEN, EVERY_TOKEN)),
        ("none", (0.0, 0.0), (EVERY_TOKEN, EVERY_TOKEN)),
        # Two of ten hint tokens, though all ten count in the mean.
        ("high-entropy", (0.001, 0.001), (2, 2)),
        ("not-below-baseline", (0.001, 0.0), (EVERY_TOKEN, EVERY_TOKEN)),
    ],
)
@pytest.mark.parametrize("strategy", ["seele", "uft", "fixed_hint"])
def test_which_hint_tokens_learn_is_an_option(
    strategy: str, supervision: str, weights: tuple[float, float], learning: tuple[int, int]
) -> None:
    built = build_strategy(config(strategy, supervision=supervision))
    right, wrong = built.samples(PROBLEM, [rollout(1, 1.0, hint_length=10), rollout(1, 0.0, hint_length=10)])
    for sample, weight, uncertain in zip((right, wrong), weights, learning, strict=True):
        np.testing.assert_array_equal(sample.supervised, np.float32([0] * 3 + [weight] * 10 + [0] * 2))
        assert sample.most_uncertain == uncertain
        assert not sample.off_policy.any()


def test_a_hint_of_no_length_has_no_uncertain_tokens() -> None:
    (sample,) = build_strategy(config(supervision="high-entropy")).samples(PROBLEM, [rollout(1, 1.0)])
    assert sample.most_uncertain == EVERY_TOKEN


def test_hints_end_where_steps_do_when_steps_are_their_unit() -> None:
    strategy = build_strategy(config(unit="step"))
    assert {r.hint_length for _ in range(6) for r in play(strategy, reward=0.0)} <= {0, 2, 5, 9}


@pytest.mark.parametrize(("target", "longer"), [(0.25, False), (0.75, True)])
def test_a_higher_target_shows_more(target: float, longer: bool) -> None:
    def last_hint(accuracy: float) -> int:
        return play(build_strategy(config(target_accuracy=accuracy)), reward=0.0)[-1].hint_length

    middle, other = last_hint(0.5), last_hint(target)
    assert other >= middle if longer else other <= middle
