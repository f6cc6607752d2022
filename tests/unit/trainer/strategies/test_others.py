"""The methods beside SEELE, against token weights and advantages computed by hand from their papers."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.hints.controller import HintStateError
from seele_trainer.learner.deepspeed import learning_rate
from seele_trainer.learner.sample import EVERY_TOKEN, Sample
from seele_trainer.methods import StrategyName
from seele_trainer.strategies import STRATEGIES, build_strategy
from seele_trainer.strategies.base import Rollout, Strategy
from seele_trainer.strategies.luffy import Luffy
from seele_trainer.strategies.prefix_rft import HYBRID, PLAIN, PrefixRft
from seele_trainer.strategies.uft import Uft, slice_ends
from tests.support.strategy_cases import PROBLEM, config, play, rollout

PROMPT, SOLUTION = [1, 2, 3], list(range(10, 21))


def named(name: str) -> TokenizedProblem:
    return replace(PROBLEM, problem=replace(PROBLEM.problem, id=name))


def check(
    sample: Sample,
    tokens: Sequence[int],
    *,
    advantage: Sequence[float],
    generated: Sequence[int] = (),
    off_policy: Sequence[int] = (),
    supervised: Sequence[float] | None = None,
) -> None:
    """Compare a sample with the expected one; `generated` and `off_policy` are positions."""
    np.testing.assert_array_equal(sample.tokens, tokens)
    np.testing.assert_allclose(sample.advantage, np.float32(advantage), rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(sample.policy_mask), list(generated))
    np.testing.assert_array_equal(np.flatnonzero(sample.off_policy), list(off_policy))
    np.testing.assert_allclose(sample.supervised, np.float32(supervised or [0] * len(tokens)), rtol=1e-6)
    np.testing.assert_array_equal(sample.behaviour_logprobs != 0, sample.policy_mask)


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_every_strategy_is_a_class_in_a_file_of_its_name(name: StrategyName) -> None:
    assert STRATEGIES[name].__module__ == f"seele_trainer.strategies.{name}"
    assert type(build_strategy(config(name))) is STRATEGIES[name]


# --- SFT, and SFT before GRPO


def test_sft_samples_nothing_and_learns_the_whole_solution_at_weight_one() -> None:
    strategy = build_strategy(config("sft"))
    assert strategy.next_round(PROBLEM, []) is None
    assert strategy.rounds == 0
    assert strategy.baseline_groups([]) == []
    (sample,) = strategy.samples(PROBLEM, [])
    # Independent of gamma, which is for hints. The last token, which ends the sequence, is learned too.
    check(sample, [*PROMPT, *SOLUTION], advantage=[0] * 14, supervised=[0] * 3 + [1] * 11)


def test_sft_comes_first_and_grpo_after_its_share_of_the_steps() -> None:
    options = {"steps": 10, "sft_then_grpo": {"sft_share": 0.3}}
    strategy = build_strategy(config("sft_then_grpo", options))
    kinds = []
    for step in range(1, 11):
        strategy.begin_step(step)
        done = play(strategy, reward=1.0)
        samples = strategy.samples(PROBLEM, done)
        kinds.append((len(done), len(samples), any(sample.supervised.any() for sample in samples)))
    assert kinds == [(0, 1, True)] * 3 + [(12, 12, False)] * 7


def test_the_phases_of_sft_then_grpo_have_their_own_learning_rates_warm_ups_and_schedules() -> None:
    training = config(
        "sft_then_grpo",
        {
            "steps": 4,
            "problems_per_step": 6,
            "problems_per_update": 2,
            "learning_rate": 1.0,
            "learning_rate_schedule": "linear",
            "final_learning_rate_ratio": 0.0,
            "warmup_updates": 1,
            "sft_then_grpo": {"sft_share": 0.25, "sft_learning_rate": 10.0},
        },
    ).training
    rates = [learning_rate(training, update, 12) for update in range(12)]
    # One step of three updates, then three steps of nine: up to the peak in one update, down to 0 in the last.
    assert rates == pytest.approx([10, 10, 0, 1, 1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 2 / 7, 1 / 7, 0])
    without = training.model_copy(
        update={"sft_then_grpo": training.sft_then_grpo.model_copy(update={"sft_learning_rate": None})}
    )
    assert learning_rate(without, 0, 12) == 1.0


# --- a fixed hint


def test_a_fixed_hint_shows_the_same_share_at_every_step_whatever_the_rewards() -> None:
    strategy = build_strategy(config("fixed_hint", {"fixed_hint": {"rate": 0.4}}))
    for step, reward in ((1, 0.0), (2, 1.0)):
        strategy.begin_step(step)
        assert [(r.round, r.hint_length) for r in play(strategy, reward)] == [(1, 4)] * 12
    in_steps = build_strategy(config("fixed_hint", {"fixed_hint": {"rate": 0.6}}, unit="step"))
    assert play(in_steps, 0.0)[0].hint_length == 5


def test_a_fixed_hint_is_weighted_as_in_seele() -> None:
    rollouts = [rollout(1, 1.0, hint_length=2), rollout(1, 0.0, hint_length=2)]
    first, second = build_strategy(config("fixed_hint")).samples(PROBLEM, rollouts)
    supervised = [0, 0, 0, 0.001, 0.001, 0, 0]
    check(first, [1, 2, 3, 10, 11, 30, 31], advantage=[0] * 5 + [0.5] * 2, generated=(5, 6), supervised=supervised)
    check(second, [1, 2, 3, 10, 11, 30, 31], advantage=[0] * 5 + [-0.5] * 2, generated=(5, 6), supervised=supervised)


# --- UFT


def uft(steps: int = 100, **options: object) -> Uft:
    strategy = build_strategy(config("uft", {"steps": steps, "uft": options}))
    assert isinstance(strategy, Uft)
    return strategy


def test_the_probability_of_a_slice_falls_along_a_cosine_and_is_zero_afterwards() -> None:
    strategy, found = uft(), []
    # T_hint is 60: halfway is t = 30, and t = 0 is the first step.
    for step in (1, 31, 61, 62, 100):
        strategy.begin_step(step)
        found.append(strategy.probability())
    assert found == pytest.approx([0.95, 0.5, 0.05, 0.0, 0.0])
    strategy.begin_step(16)
    assert strategy.probability() == pytest.approx(0.05 + 0.45 * (1 + math.cos(math.pi * 15 / 60)))


def test_slices_end_at_steps_and_are_as_even_as_whole_steps_allow() -> None:
    assert slice_ends(PROBLEM, 5) == (0, 2, 5, 9)
    assert slice_ends(PROBLEM, 2) == (0, 5, 9)
    seven = replace(PROBLEM, step_ends=(1, 2, 3, 4, 5, 6, 7))
    assert slice_ends(seven, 5) == (0, 1, 3, 4, 6, 7)
    assert slice_ends(replace(PROBLEM, step_ends=()), 5) == (0,)


def test_the_slices_shown_are_binomial_and_depend_on_seed_step_and_problem_alone() -> None:
    def shown(strategy: Uft, step: int) -> list[int]:
        strategy.begin_step(step)
        plans = [strategy.next_round(named(str(name)), []) for name in range(400)]
        assert all(plan is not None and plan.rollouts == 12 for plan in plans)
        return [slice_ends(PROBLEM, 5).index(plan.hint_length) for plan in plans if plan is not None]

    strategy = uft()
    first, middle = shown(strategy, 1), shown(strategy, 31)
    # Binomial(3, p): means 2.85 and 1.5, deviations of the means of 400 below 0.05.
    assert np.mean(first) == pytest.approx(2.85, abs=0.1)
    assert np.mean(middle) == pytest.approx(1.5, abs=0.2)
    assert np.var(middle) == pytest.approx(0.75, abs=0.2)
    assert shown(uft(), 31) == middle
    level = uft(first_probability=0.5, last_probability=0.5)
    assert shown(level, 31) == middle != shown(level, 32)
    assert set(shown(strategy, 62)) == {0}


def test_all_rollouts_of_a_problem_share_the_hint_and_the_baseline() -> None:
    strategy = uft()
    done = play(strategy, reward=1.0)
    assert len({r.hint_length for r in done}) == 1
    assert [len(group) for group in strategy.baseline_groups(done)] == [12]


# --- Prefix-RFT


def prefix_rft(steps: int = 100, **options: object) -> PrefixRft:
    strategy = build_strategy(config("prefix_rft", {"steps": steps, "prefix_rft": options}))
    assert isinstance(strategy, PrefixRft)
    return strategy


def test_one_of_the_rollouts_continues_a_prefix() -> None:
    done = play(prefix_rft(), reward=1.0)
    assert [(r.round, r.hint_length) for r in done[:-1]] == [(PLAIN, 0)] * 11
    # The first prefix is of 0.95 of ten tokens, rounded down.
    assert (done[-1].round, done[-1].hint_length) == (HYBRID, 9)


def test_prefixes_are_uniform_above_a_bound_that_falls_along_a_cosine() -> None:
    strategy, bounds = prefix_rft(), []
    for step in (1, 51, 100):
        strategy.begin_step(step)
        bounds.append(strategy.lower_bound())
    assert bounds == pytest.approx([0.95, 0.5, 0.05], abs=1e-3)

    def lengths(step: int, of: PrefixRft) -> list[int]:
        of.begin_step(step)
        long = replace(PROBLEM, solution=tuple(range(1001)), revealable=1000)
        plain = [rollout(PLAIN, 0.0)]
        problems = [replace(long, problem=replace(long.problem, id=str(name))) for name in range(300)]
        return [plan.hint_length for plan in (of.next_round(each, plain) for each in problems) if plan is not None]

    found = lengths(51, strategy)
    assert min(found) >= 500
    assert max(found) <= 950
    assert np.mean(found) == pytest.approx(725, abs=25)
    assert lengths(51, prefix_rft()) == found
    level = prefix_rft(first_lower_bound=0.5, last_lower_bound=0.5)
    assert lengths(51, level) != lengths(52, level)


def test_a_prefix_gets_the_advantage_of_its_rollout_against_the_plain_ones_and_they_their_own() -> None:
    strategy = prefix_rft(entropy_share=0.3)
    rollouts = [rollout(PLAIN, reward) for reward in (1.0, 0.0, 0.0, 0.0)] + [rollout(HYBRID, 1.0, hint_length=4)]
    *plain, hybrid = strategy.samples(PROBLEM, rollouts)
    for sample, advantage in zip(plain, (0.75, -0.25, -0.25, -0.25), strict=True):
        check(sample, [1, 2, 3, 30, 31], advantage=[0, 0, 0, advantage, advantage], generated=(3, 4))
        assert sample.most_uncertain == EVERY_TOKEN
        assert sample.clipped
    # 1 - 1/4, on the prefix and on what follows; the two most uncertain of four prefix tokens learn, 0.3 of 4 rounded up.
    check(
        hybrid,
        [1, 2, 3, 10, 11, 12, 13, 30, 31],
        advantage=[0, 0, 0] + [0.75] * 6,
        generated=(7, 8),
        off_policy=(3, 4, 5, 6),
    )
    assert (hybrid.most_uncertain, hybrid.shaping) == (2, 0.0)
    assert [len(group) for group in strategy.baseline_groups(rollouts)] == [4]


def test_a_failed_prefix_is_pushed_down_and_one_without_a_baseline_makes_no_samples() -> None:
    strategy = prefix_rft()
    failed = strategy.samples(PROBLEM, [rollout(PLAIN, 1.0), rollout(PLAIN, 0.0), rollout(HYBRID, 0.0, hint_length=2)])
    assert failed[-1].advantage[3:].tolist() == [-0.5] * 4
    assert strategy.samples(PROBLEM, [rollout(PLAIN, None), rollout(HYBRID, 1.0, hint_length=2)]) == []
    for hybrid in (rollout(HYBRID, None, hint_length=2), replace(rollout(HYBRID, 0.0, hint_length=2), masked=True)):
        assert len(strategy.samples(PROBLEM, [rollout(PLAIN, 1.0), hybrid])) == 1


# --- LUFFY


def test_the_solution_replaces_one_rollout_in_the_group() -> None:
    strategy = build_strategy(config("luffy", {"luffy": {"shaping": 0.2}}))
    done = play(strategy, reward=0.0)
    assert [(r.round, r.hint_length) for r in done] == [(1, 0)] * 11
    rollouts = [rollout(1, reward) for reward in (1.0, 0.0, 0.0)]
    reference, *sampled = strategy.samples(PROBLEM, rollouts)
    # Rewards 1 (the solution), 1, 0, 0: a mean of a half.
    check(reference, [*PROMPT, *SOLUTION], advantage=[0] * 3 + [0.5] * 11, off_policy=range(3, 14))
    assert reference.shaping == 0.2
    assert not any(sample.clipped for sample in (reference, *sampled))
    for sample, advantage in zip(sampled, (0.5, -0.5, -0.5), strict=True):
        check(sample, [1, 2, 3, 30, 31], advantage=[0, 0, 0, advantage, advantage], generated=(3, 4))
        assert sample.shaping == 0.0
    assert [[r.reward for r in group] for group in strategy.baseline_groups(rollouts)] == [[1.0, 1.0, 0.0, 0.0]]


def test_the_solution_has_most_weight_if_all_rollouts_fail_and_none_if_all_succeed() -> None:
    strategy = build_strategy(config("luffy"))
    assert isinstance(strategy, Luffy)

    def weight(reward: float) -> float:
        return float(strategy.samples(PROBLEM, play(strategy, reward))[0].advantage[-1])

    assert weight(0.0) == pytest.approx(11 / 12)
    assert weight(1.0) == 0.0
    # No rollout could be verified: there is no group, and so no baseline.
    assert strategy.samples(PROBLEM, [rollout(1, None)]) == []


# --- all of them


def rolled_out(strategy: Strategy, steps: Sequence[int]) -> list[list[Rollout]]:
    done = []
    for step in steps:
        strategy.begin_step(step)
        done.append(play(strategy, reward=float(step % 2)))
        strategy.end_step()
    return done


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_a_restored_strategy_continues_as_if_it_had_never_stopped(name: StrategyName) -> None:
    options = {"steps": 6, "sft_then_grpo": {"sft_share": 0.5}}
    whole, first, second = (build_strategy(config(name, options)) for _ in range(3))
    expected = rolled_out(whole, range(1, 7))
    assert rolled_out(first, range(1, 4)) == expected[:3]
    second.load_state_dict(first.state_dict())
    assert rolled_out(second, range(4, 7)) == expected[3:]


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_no_hint_reaches_the_final_answer(name: StrategyName) -> None:
    strategy = build_strategy(config(name, {"steps": 20, "fixed_hint": {"rate": 1.0}}))
    for step in range(1, 21):
        strategy.begin_step(step)
        assert all(r.hint_length <= PROBLEM.revealable for r in play(strategy, reward=0.0))


@pytest.mark.parametrize("name", [name for name in get_args(StrategyName) if name != "sft"])
def test_every_method_samples_the_same_budget(name: StrategyName) -> None:
    strategy = build_strategy(config(name, {"steps": 4, "sft_then_grpo": {"sft_share": 0.25}}))
    strategy.begin_step(2)
    # LUFFY's solution replaces one.
    assert len(play(strategy, reward=0.0)) == (11 if name == "luffy" else 12)
    assert strategy.rounds == {"seele": 3, "prefix_rft": 2}.get(name, 1)


def test_the_state_of_a_controller_is_refused_by_a_method_without_one_and_vice_versa() -> None:
    seele, grpo = build_strategy(config()), build_strategy(config("grpo"))
    with pytest.raises(HintStateError, match="a strategy other than grpo"):
        grpo.load_state_dict(seele.state_dict())
    with pytest.raises(HintStateError):
        seele.load_state_dict(grpo.state_dict())
