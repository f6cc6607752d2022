"""The 3PL curve, its inverse and its two fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seele_trainer.hints import irt
from seele_trainer.hints.irt import Curve

# Fig. 3 of arXiv 2509.06923.
PAPER_CURVES = Curve(
    np.array([4.46, 43.15, 19.03, 50.0]), np.array([-0.50, -0.84, -0.64, -0.59]), np.array([0.0, 0.02, 0.45, 0.0])
)
finite = st.floats(allow_nan=False, allow_infinity=False)
fractions = st.floats(0.0, 1.0)
anything = st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 0.5, 8.0]))


def column(curve: Curve) -> Curve:
    return Curve(curve.discrimination[:, None], curve.ability[:, None], curve.guessing[:, None])


def population(seed: int, problems: int) -> Curve:
    random = np.random.default_rng(seed)
    guesses = random.random(problems) < 0.3
    return Curve(
        np.clip(np.exp(random.normal(np.log(12.0), 0.5, problems)), 3.0, 50.0),
        -random.uniform(0.2, 0.9, problems),
        np.where(guesses, random.uniform(0.0, 0.25, problems), 0.0),
    )


def rounds(true: Curve, observations: int, seed: int) -> tuple[irt.Floats, irt.Floats, irt.Floats]:
    random = np.random.default_rng(seed)
    rates = random.uniform(0.0, 1.0, (len(true.ability), observations))
    return rates, random.binomial(8, column(true).accuracy(rates)) / 8, np.full(rates.shape, 8.0)


def test_accuracy_is_halfway_between_guessing_and_one_at_minus_the_ability() -> None:
    at_half = PAPER_CURVES.accuracy(-PAPER_CURVES.ability)
    assert at_half == pytest.approx((1 + PAPER_CURVES.guessing) / 2)


def test_a_longer_hint_makes_a_problem_easier() -> None:
    accuracies = column(PAPER_CURVES).accuracy(np.linspace(0, 1, 21))
    assert (np.diff(accuracies, axis=1) >= 0).all()
    assert (accuracies[:, -1] > 0.9).all()


@given(k=st.floats(0.5, 50.0), threshold=st.floats(0.05, 0.95), b=st.floats(0.0, 0.4), target=st.floats(0.45, 0.8))
def test_rate_for_inverts_the_curve_if_possible(k: float, threshold: float, b: float, target: float) -> None:
    curve = Curve(np.float64(k), np.float64(-threshold), np.float64(b))
    rate = float(curve.rate_for(target))
    if float(curve.accuracy(0.0)) >= target:
        assert rate == 0.0
    elif float(curve.accuracy(1.0)) <= target:
        assert rate == 1.0
    else:
        assert float(curve.accuracy(rate)) == pytest.approx(target, abs=1e-9)


def test_the_rate_is_zero_if_guessing_reaches_the_target_and_one_if_no_hint_does() -> None:
    curves = Curve(np.array([20.0, 20.0, 20.0]), np.array([-0.5, -1.5, 0.5]), np.array([0.5, 0.0, 0.0]))
    assert curves.rate_for(0.5).tolist() == [0.0, 1.0, 0.0]


@given(k=finite, mu=finite, b=finite, target=fractions, rate=fractions)
def test_no_finite_parameter_makes_the_curve_fail(k: float, mu: float, b: float, target: float, rate: float) -> None:
    curve = Curve(np.float64(k), np.float64(mu), np.float64(b))
    assert 0.0 <= float(curve.rate_for(target)) <= 1.0
    assert np.isfinite(curve.accuracy(rate))


def test_fit_recovers_curves_from_many_rollouts() -> None:
    true = population(0, 100)
    rates = np.tile(np.linspace(0.0, 1.0, 21), (100, 1))
    fitted = irt.fit(rates, column(true).accuracy(rates), np.full(rates.shape, 500.0))
    assert fitted.rate_for(0.5) == pytest.approx(true.rate_for(0.5), abs=0.02)
    assert column(fitted).accuracy(rates) == pytest.approx(column(true).accuracy(rates), abs=0.06)


def test_the_papers_fit_recovers_its_own_example_curves() -> None:
    rates = np.tile(np.linspace(0.0, 1.0, 41), (4, 1))
    fitted = irt.fit_paper(rates, column(PAPER_CURVES).accuracy(rates), np.full(rates.shape, 8.0))
    assert fitted.ability == pytest.approx(PAPER_CURVES.ability, abs=0.01)
    assert fitted.discrimination == pytest.approx(PAPER_CURVES.discrimination, rel=0.05)
    assert fitted.guessing == pytest.approx(PAPER_CURVES.guessing, abs=0.01)


def test_fit_predicts_better_rates_than_the_papers_fit() -> None:
    true = population(1, 128)
    gains = []
    for observations in (2, 5):
        data = rounds(true, observations, observations)
        efficiency = {}
        for name, estimate in (("fast", irt.fit), ("paper", irt.fit_paper)):
            accuracy = true.accuracy(estimate(*data).rate_for(0.5))
            efficiency[name] = float((4 * accuracy * (1 - accuracy)).mean())
        gains.append(efficiency["fast"] - efficiency["paper"])
    assert min(gains) > 0.0


def test_a_batch_gives_the_results_of_each_problem_alone() -> None:
    rates, accuracies, trials = rounds(population(2, 5), 4, 2)
    together = irt.fit(rates, accuracies, trials)
    alone = [irt.fit(*(values[row] for values in (rates, accuracies, trials))) for row in range(5)]
    assert together.ability == pytest.approx([float(curve.ability[0]) for curve in alone], abs=1e-5)


@pytest.mark.parametrize("estimate", [irt.fit, irt.fit_paper])
def test_missing_observations_change_nothing(estimate) -> None:
    full = estimate([[0.3, 0.6]], [[0.25, 0.75]], [[8, 8]])
    padded = estimate([[0.3, np.nan, 0.6, 0.9, 0.2]], [[0.25, 0.5, 0.75, np.nan, 1.0]], [[8, 8, 8, 8, 0]])
    assert padded.ability == pytest.approx(full.ability, abs=1e-6)
    assert padded.discrimination == pytest.approx(full.discrimination, rel=1e-5)


@pytest.mark.parametrize("estimate", [irt.fit, irt.fit_paper])
def test_equal_rates_average_by_their_trials(estimate) -> None:
    split = estimate([[0.5, 0.5, 0.8]], [[1.0, 0.0, 1.0]], [[2, 6, 8]])
    merged = estimate([[0.5, 0.8]], [[0.25, 1.0]], [[8, 8]])
    assert split.ability == pytest.approx(merged.ability, abs=1e-4)
    assert split.rate_for(0.5) == pytest.approx(merged.rate_for(0.5), abs=1e-4)


@pytest.mark.parametrize("estimate", [irt.fit, irt.fit_paper])
def test_all_wrong_gives_a_longer_hint_and_all_right_a_shorter_one(estimate) -> None:
    wrong, right = estimate([[0.6], [0.6]], [[0.0], [1.0]], [[8], [8]]).rate_for(0.5)
    assert wrong > 0.6 > right


@pytest.mark.parametrize("estimate", [irt.fit, irt.fit_paper])
def test_a_measured_end_replaces_its_margin_point(estimate) -> None:
    assert estimate([[0.0, 0.5]], [[0.875, 1.0]], [[8, 8]]).rate_for(0.5)[0] == 0.0
    assert estimate([[1.0, 0.5]], [[0.125, 0.0]], [[8, 8]]).rate_for(0.5)[0] > 0.9


@settings(deadline=None, max_examples=60)
@given(data=st.lists(st.tuples(anything, anything, anything), min_size=0, max_size=5), paper=st.booleans())
def test_no_data_make_a_fit_fail(data: list[tuple[float, float, float]], paper: bool) -> None:
    values = np.array(data, dtype=np.float64).reshape(-1, 3).T[:, None, :]
    curve = (irt.fit_paper if paper else irt.fit)(*values)
    assert 0.0 <= float(curve.rate_for(0.5)[0]) <= 1.0
    assert 0.0 < float(curve.discrimination[0]) <= irt.MAX_DISCRIMINATION * (1 + 1e-9)
    assert 0.0 <= float(curve.guessing[0]) < 1.0
    assert np.isfinite(curve.ability[0])
