"""The hint controller: direction, robustness, memory, exact state, and how well it keeps to the target in simulation."""

import copy
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import hint_simulation as simulation
from seele_trainer.hints.controller import EstimatorName, HintController, HintStateError

ESTIMATORS: tuple[EstimatorName, ...] = ("shared-ability", "paper")
names = st.sampled_from(["a", "b", "c"])
counts = st.integers(0, 8)
targets = st.sampled_from([0.25, 0.375, 0.5, 0.625, 0.75])
# (problem, rate or None for the one proposed, successes of 8); a None closes the step.
histories = st.lists(
    st.one_of(st.none(), st.tuples(names, st.one_of(st.none(), st.floats(0.0, 1.0)), counts)), max_size=14
)
numbers = st.one_of(st.floats(), st.integers(-2, 20), st.sampled_from([math.nan, math.inf, 1e300, 0.5, 0, 1]))


def controller_after(history: list[tuple[str, float | None, int] | None], target: float = 0.5) -> HintController:
    controller = HintController(target, 4, 8)
    for event in history:
        if event is None:
            controller.end_step()
        else:
            problem, rate, successes = event
            controller.observe(problem, controller.propose(problem) if rate is None else rate, successes, 8)
    return controller


def train(controller: HintController, threshold: float, problems: range, steps: int = 1) -> None:
    """Steps in which every problem's curve has this `threshold`, four rounds each, without sampling noise."""
    for _ in range(steps):
        for _ in range(4):
            for problem in problems:
                rate = controller.propose(str(problem))
                controller.observe(str(problem), rate, 8 / (1 + math.exp(-12 * (rate - threshold))), 8)
        controller.end_step()


# Direction


@settings(deadline=None)
@given(history=histories, target=targets, rate=st.one_of(st.none(), st.floats(0.0, 1.0)))
def test_a_round_all_wrong_never_shortens_the_next_hint_and_one_all_right_never_lengthens_it(
    history: list[tuple[str, float | None, int] | None], target: float, rate: float | None
) -> None:
    wrong = controller_after(history, target)
    before = wrong.propose("a")
    right = copy.deepcopy(wrong)
    shown = before if rate is None else rate
    wrong.observe("a", shown, 0, 8)
    right.observe("a", shown, 8, 8)
    assert wrong.propose("a") >= before >= right.propose("a")


@settings(deadline=None)
@given(history=st.lists(st.tuples(names, st.none(), counts), max_size=6), target=targets)
def test_all_wrong_lengthens_and_all_right_shortens_the_next_hint_if_there_is_room(
    history: list[tuple[str, float | None, int] | None], target: float
) -> None:
    controller = controller_after(history, target)
    before = controller.propose("new")
    for successes in (0, 8):
        then = copy.deepcopy(controller)
        then.observe("new", before, successes, 8)
        if successes == 0 and before < 0.95:
            assert then.propose("new") > before + 0.01
        if successes == 8 and before > 0.05:
            assert then.propose("new") < before - 0.01


@settings(deadline=None, max_examples=50)
@given(target=targets, warm=st.integers(0, 3), threshold=st.floats(0.2, 0.9))
def test_the_more_rollouts_succeed_the_shorter_the_next_hint(target: float, warm: int, threshold: float) -> None:
    controller = HintController(target, 4, 8)
    train(controller, threshold, range(8), steps=warm)
    rates = []
    for successes in range(9):
        then = copy.deepcopy(controller)
        then.observe("new", then.propose("new"), successes, 8)
        rates.append(then.propose("new"))
    assert max(np.diff(rates)) < 0.02
    assert rates[0] > rates[8]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_problem_that_always_fails_ends_at_the_longest_hint_and_an_easy_one_at_none(estimator: EstimatorName) -> None:
    for successes, end in ((0, 1.0), (8, 0.0)):
        controller = HintController(0.5, 4, 8, estimator=estimator)
        for _ in range(3):
            for _ in range(4):
                controller.observe("a", controller.propose("a"), successes, 8)
            controller.end_step()
        assert controller.propose("a") == pytest.approx(end, abs=0.05)


# Robustness


@settings(deadline=None, max_examples=60)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    target=targets,
    calls=st.lists(st.one_of(st.none(), st.tuples(st.text(max_size=2), numbers, numbers, numbers)), max_size=6),
)
def test_no_data_make_it_raise_or_propose_a_rate_outside_the_unit_interval(
    estimator: EstimatorName, target: float, calls: list[tuple[str, float, float, float] | None]
) -> None:
    controller = HintController(target, 4, 8, estimator=estimator)
    for call in calls:
        if call is None:
            controller.end_step()
            continue
        controller.observe(*call)
        assert 0.0 <= controller.propose(call[0]) <= 1.0
    assert all(math.isfinite(value) for value in controller.summary().ability)
    json.dumps(controller.state_dict(), allow_nan=False)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_contradictory_and_repeated_rates_leave_a_rate_in_between(estimator: EstimatorName) -> None:
    controller = HintController(0.5, 4, 8, estimator=estimator)
    for rate, successes in ((0.4, 8), (0.6, 0), (0.4, 0), (0.6, 8), (0.5, 4), (0.5, 4)):
        controller.observe("a", rate, successes, 8)
    assert 0.2 < controller.propose("a") < 0.8


@pytest.mark.parametrize(
    ("rate", "successes", "trials"),
    [(math.nan, 4, 8), (0.5, math.nan, 8), (0.5, 4, math.inf), (0.5, 0, 0), (0.5, 1, -3)],
)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_meaningless_round_is_counted_and_changes_nothing(
    estimator: EstimatorName, rate: float, successes: float, trials: float
) -> None:
    controller = HintController(0.5, 4, 8, estimator=estimator)
    before = controller.propose("a")
    controller.observe("a", rate, successes, trials)
    assert controller.propose("a") == before
    assert controller.summary().fallbacks == 1


@pytest.mark.parametrize(
    "settings_", [{"target": 0.0}, {"target": 1.0}, {"rounds": 0}, {"rollouts_per_round": 0}, {"first_rate": 1.5}]
)
def test_settings_out_of_range_are_refused(settings_: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"choose one|at least 1"):
        HintController(**{"target": 0.5, "rounds": 4, "rollouts_per_round": 8, **settings_})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown estimator"):
        HintController(0.5, 4, 8, estimator="other")  # type: ignore[arg-type]


# The shared ability


def test_a_new_problem_starts_from_the_current_ability() -> None:
    controller = HintController(0.5, 4, 8)
    train(controller, 0.9, range(16))
    weak = controller.propose("new")
    train(controller, 0.3, range(16), steps=4)
    strong = controller.propose("new")
    assert weak == pytest.approx(0.9, abs=0.08)
    assert strong == pytest.approx(0.3, abs=0.08)


def test_a_known_problem_is_corrected_by_the_change_of_ability_since() -> None:
    controller = HintController(0.5, 4, 8)
    for _ in range(4):
        for problem, threshold in [*((str(i), 0.6) for i in range(16)), ("harder", 0.8)]:
            rate = controller.propose(problem)
            controller.observe(problem, rate, 8 / (1 + math.exp(-12 * (rate - threshold))), 8)
    controller.end_step()
    then = controller.propose("harder")
    train(controller, 0.3, range(16), steps=4)
    assert then == pytest.approx(0.8, abs=0.08)
    assert controller.propose("harder") == pytest.approx(0.5, abs=0.12)


def test_the_first_rounds_of_a_step_already_change_proposals_for_other_problems() -> None:
    controller = HintController(0.5, 4, 8)
    before = controller.propose("waiting")
    for problem in range(8):
        controller.observe(str(problem), before, 0, 8)
    assert controller.propose("waiting") > before + 0.05


def test_it_does_not_assume_that_the_whole_hint_always_suffices() -> None:
    controller = HintController(0.5, 4, 8)
    for problem in range(8):
        for _ in range(4):
            controller.observe(str(problem), 1.0, 3, 8)
    assert controller.propose("0") == 1.0
    assert controller.propose("new") == 1.0


def test_ability_follows_a_jump_down_within_a_step() -> None:
    controller = HintController(0.5, 4, 8)
    train(controller, 0.3, range(16), steps=5)
    train(controller, 0.8, range(16), steps=1)
    assert controller.propose("0") == pytest.approx(0.8, abs=0.1)
    assert controller.propose("new") == pytest.approx(0.8, abs=0.1)


# The paper's scheme


def test_the_papers_scheme_starts_long_and_keeps_its_last_prediction_for_the_next_epoch() -> None:
    controller = HintController(0.5, 4, 8, estimator="paper", first_rate=0.75)
    assert controller.propose("a") == 0.75
    controller.observe("a", 0.75, 8, 8)
    controller.observe("a", controller.propose("a"), 2, 8)
    last = controller.propose("a")
    controller.end_step()
    assert controller.propose("a") == last
    assert controller.propose("b") == 0.75


def test_the_papers_scheme_forgets_the_rounds_of_the_last_step() -> None:
    after, fresh = (HintController(0.5, 4, 8, estimator="paper") for _ in range(2))
    after.observe("a", 0.3, 0, 8)
    after.end_step()
    for controller in (after, fresh):
        controller.observe("a", 0.6, 4, 8)
    assert after.propose("a") == fresh.propose("a")


# State


@settings(deadline=None, max_examples=40)
@given(history=histories, rest=st.lists(st.one_of(st.none(), st.tuples(names, st.none(), counts)), max_size=8))
def test_after_loading_a_state_every_proposal_is_the_same_to_the_last_bit(
    history: list[tuple[str, float | None, int] | None], rest: list[tuple[str, None, int] | None]
) -> None:
    original = controller_after(history)
    loaded = HintController(0.5, 4, 8)
    loaded.load_state_dict(json.loads(json.dumps(original.state_dict())))
    for event in rest:
        for name in ("a", "b", "c", "never seen"):
            assert loaded.propose(name) == original.propose(name)
        for controller in (original, loaded):
            if event is None:
                controller.end_step()
            else:
                controller.observe(event[0], controller.propose(event[0]), event[2], 8)
    assert loaded.state_dict() == original.state_dict()


def test_the_papers_state_is_exact() -> None:
    original, loaded = (HintController(0.5, 4, 8, estimator="paper") for _ in range(2))
    original.observe("a", 0.8, 7, 8)
    original.end_step()
    original.observe("a", original.propose("a"), 1, 8)
    loaded.load_state_dict(json.loads(json.dumps(original.state_dict())))
    for controller in (original, loaded):
        controller.observe("a", controller.propose("a"), 4, 8)
    assert loaded.propose("a") == original.propose("a")
    assert loaded.summary().ability == original.summary().ability


def test_a_saved_state_is_a_snapshot() -> None:
    controller = HintController(0.5, 4, 8)
    controller.observe("a", 0.5, 4, 8)
    state = controller.state_dict()
    text = json.dumps(state)
    train(controller, 0.3, range(4))
    assert json.dumps(state) == text


def test_the_state_of_a_problem_does_not_grow_with_its_visits() -> None:
    controller = HintController(0.5, 4, 8)
    sizes = []
    for _ in range(3):
        train(controller, 0.5, range(20), steps=8)
        sizes.append(len(json.dumps(controller.state_dict())))
    assert sizes[2] < 1.05 * sizes[1] < 20 * 1500


def test_a_state_of_another_estimator_is_refused_with_a_remedy() -> None:
    with pytest.raises(HintStateError, match="resume with the same estimator"):
        HintController(0.5, 4, 8).load_state_dict(HintController(0.5, 4, 8, estimator="paper").state_dict())


# Summary


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_summary_is_of_this_steps_problems_and_reset_by_the_next_step(estimator: EstimatorName) -> None:
    ticks = iter(range(1000))
    controller = HintController(0.5, 4, 8, estimator=estimator, clock=lambda: float(next(ticks)))
    for problem, successes in (("a", 0), ("b", 8)):
        controller.observe(problem, controller.propose(problem), successes, 8)
    summary = controller.summary()
    assert len(summary.discrimination) == len(summary.ability) == len(summary.guessing) == 2
    assert summary.ability[0] < summary.ability[1]
    assert all(k > 0 for k in summary.discrimination)
    assert all(0 <= b < 1 for b in summary.guessing)
    assert summary.fit_seconds == 4.0
    controller.end_step()
    assert controller.summary().ability == ()
    assert controller.summary().fit_seconds == 0.0


# Simulated training


def test_with_problems_that_get_easier_it_keeps_to_the_target_from_the_first_round() -> None:
    outcome = simulation.run(simulation.easier(), "shared-ability")
    assert outcome.efficiency > 0.92
    assert outcome.first_efficiency > 0.93
    assert outcome.reward_error < 0.03


def test_it_learns_more_from_the_same_rollouts_than_the_papers_scheme() -> None:
    world = replace(simulation.easier(3), problems=40, problems_per_step=10, passes=2)
    ours, paper = (simulation.run(world, estimator) for estimator in ESTIMATORS)
    assert ours.efficiency > paper.efficiency + 0.05
    assert ours.first_efficiency > paper.first_efficiency + 0.1


def test_late_rounds_stay_at_the_target_while_the_model_improves_fast() -> None:
    outcome = simulation.run(simulation.chains(), "shared-ability")
    assert outcome.late_error < 0.03
    assert outcome.efficiency > 0.92
    assert max(abs(accuracy - 0.5) for accuracy in outcome.by_round) < 0.05


@pytest.mark.parametrize("target", [0.375, 0.5])
def test_at_the_pace_of_the_quickstart_no_round_lags_behind_the_model(target: float) -> None:
    runs = [simulation.run(simulation.quickstart(seed, target), "shared-ability") for seed in range(3)]
    by_round = np.mean([run.by_round for run in runs], axis=0)
    assert by_round == pytest.approx([target] * 4, abs=0.016)


@pytest.mark.parametrize(
    ("world", "share_of_attainable"),
    [
        (simulation.falling(), 0.86),
        (simulation.uneven(), 0.84),
        (simulation.two_kinds(), 0.81),
        (simulation.odd_curves(), 0.82),
        (simulation.token_jumps(), 0.75),
        (simulation.five_steps(), 0.9),
        (simulation.lost_rollouts(), 0.86),
        (simulation.low_ceiling(), 0.9),
    ],
    ids=lambda value: value.name if isinstance(value, simulation.World) else "",
)
def test_it_keeps_to_the_target_if_the_model_of_the_curve_is_wrong(
    world: simulation.World, share_of_attainable: float
) -> None:
    world = replace(world, problems=160, passes=2, problems_per_step=16)
    outcome = simulation.run(world, "shared-ability")
    assert outcome.efficiency > share_of_attainable * simulation.attainable(world)
    assert outcome.late_error < 0.05


@pytest.mark.parametrize("target", [0.25, 0.375, 0.625, 0.75])
def test_it_keeps_to_other_targets(target: float) -> None:
    outcome = simulation.run(replace(simulation.easier(target=target), passes=2), "shared-ability")
    assert outcome.reward_error < 0.03
    assert outcome.late_error < 0.03
