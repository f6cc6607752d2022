"""The prior of new problems, and how fast it forgets."""

import numpy as np
import pytest

from seele_trainer.hints import grid
from seele_trainer.hints.irt import Floats
from seele_trainer.hints.population import CENTRES, KEPT, MEMORY_PROBLEMS, Population


def one(size: int, index: int) -> Floats:
    return np.eye(size)[index]


def step(population: Population, problems: int, discrimination: int) -> None:
    """A step with new problems of the same difficulty and guessing, and curves of this steepness."""
    for _ in range(problems):
        population.add(one(len(CENTRES), 9), one(len(grid.DISCRIMINATION), discrimination), one(len(grid.GUESSING), 0))
    population.end_step()


@pytest.mark.parametrize(("problems", "steps"), [(4, 6), (16, 2), (256, 2)])
def test_curves_that_became_flat_are_expected_after_a_few_steps(problems: int, steps: int) -> None:
    population = Population.unknown()
    for _ in range(20):
        step(population, problems, discrimination=7)
    assert population.discrimination.argmax() == 7
    for _ in range(steps):
        step(population, problems, discrimination=0)
    assert population.discrimination.argmax() == 0


def test_with_few_problems_per_step_it_does_not_forget_all() -> None:
    population = Population.unknown()
    for _ in range(50):
        step(population, 1, discrimination=3)
        assert population.difficulty.sum() <= MEMORY_PROBLEMS + 1
    assert population.difficulty.sum() == pytest.approx(MEMORY_PROBLEMS)
    step(population, 256, discrimination=3)
    assert population.difficulty.sum() == pytest.approx(KEPT * (MEMORY_PROBLEMS + 256))
