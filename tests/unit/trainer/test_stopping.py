"""What a stop takes, by the model's size and as measured, and what is said about it."""

import math
from dataclasses import replace

import pytest

from seele_trainer.learner.learner import UpdateStats
from seele_trainer.stopping import StopCost

UPDATE = UpdateStats(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1, 1, 60.0, applied=True, micro_batches=6)
LOST = "If it is killed before, the same command resumes after step 3, which is saved"


def measured(grace: float, updates_per_step: int = 4) -> StopCost:
    """A save took 100 s, an update of 6 micro-batches at most 120 s, a push 5 s."""
    cost = StopCost(grace, updates_per_step)
    cost.trained([UPDATE, replace(UPDATE, seconds=120.0), UPDATE, UPDATE], sync_seconds=5.0)
    cost.saved(100.0)
    return cost


def test_a_stop_waits_for_a_micro_batch_or_for_the_rest_of_its_step() -> None:
    cost = measured(1800.0)
    assert cost.seconds(finish=False) == 100 + 120 / 6
    assert cost.seconds(finish=True) == cost.longest == 100 + 3 * 120 + 5
    # The only update of a step is not finished but abandoned, so its micro-batch may be the longest wait.
    assert measured(1800.0, updates_per_step=1).longest == 120


def test_a_grace_period_that_is_too_short_is_named_with_the_value_it_needs_once_estimated_and_once_measured() -> None:
    cost = StopCost(30.0, 4)
    assert cost.warning() is None
    cost.expect(8_000_000_000)
    assert cost.warning() == (
        "a stop may take 40 s, if 200 MB are saved a second, and pods are killed after 30 s; what is not saved by then is "
        "lost, back to the last checkpoint: set runPolicy.terminationGracePeriodSeconds to 60"
    )
    assert cost.warning() is None
    cost.saved(50.0)
    assert str(cost.warning()).startswith("a stop may take 50 s, as measured, and pods are killed after 30 s")
    assert cost.warning() is None


@pytest.mark.parametrize("grace", [60.0, math.inf])
def test_a_grace_period_that_suffices_is_not_mentioned(grace: float) -> None:
    cost = StopCost(grace, 4)
    cost.expect(8_000_000_000)
    cost.saved(60.0)
    assert cost.warning() is None


@pytest.mark.parametrize(
    ("grace", "boundary", "ahead", "words"),
    [
        (1800.0, 3, False, "there is nothing new to save; the same command resumes after step 3, which is saved"),
        (1800.0, 4, False, f"step 4 is saved; what came after it is discarded. This takes about 2 min 00 s. {LOST}"),
        (
            100.0,
            4,
            False,
            "step 4 is saved; what came after it is discarded. This takes about 2 min 00 s, and pods are killed after "
            f"1 min 40 s (runPolicy.terminationGracePeriodSeconds). {LOST}",
        ),
        (
            math.inf,
            4,
            True,
            "step 5 is finished and saved first, because some of its updates are in the weights. "
            f"This takes about 7 min 45 s. {LOST}",
        ),
    ],
)
def test_a_stop_says_what_it_saves_and_whether_the_time_suffices(
    grace: float, boundary: int, ahead: bool, words: str
) -> None:
    assert measured(grace).fate(boundary, 3, ahead=ahead) == words


def test_before_the_first_save_the_time_is_a_bound() -> None:
    cost = StopCost(math.inf, 1)
    cost.expect(2_000_000_000)
    assert "This takes at most about 10 s." in cost.fate(1, 0, ahead=False)
