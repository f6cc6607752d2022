"""Fits that take long run beside the event loop, and change no proposal."""

import asyncio
import threading
from typing import Any

import pytest

from seele_trainer.hints import irt
from seele_trainer.hints.controller import EstimatorName, HintController

pytestmark = pytest.mark.unit

OUTCOMES = {f"p{number}": [(7 * number + 3 * turn) % 9 for turn in range(3)] for number in range(6)}
"""Successes of 8 rollouts in each problem's rounds."""


def controller(estimator: EstimatorName) -> HintController:
    return HintController(0.5, 3, 8, estimator)


async def play(hints: HintController) -> None:
    """The rounds of all problems at once."""

    async def rounds(problem: str) -> None:
        for successes in OUTCOMES[problem]:
            await hints.observe_beside(problem, hints.propose(problem), successes, 8)

    async with asyncio.TaskGroup() as tasks:
        for problem in OUTCOMES:
            tasks.create_task(rounds(problem))


async def test_the_papers_proposals_are_the_same_bit_for_bit() -> None:
    beside, plain = controller("paper"), controller("paper")
    await play(beside)
    for turn in range(3):
        for problem, outcomes in OUTCOMES.items():
            plain.observe(problem, plain.propose(problem), outcomes[turn], 8)

    assert list(beside.state_dict()["state"]["rates"].items()) == list(plain.state_dict()["state"]["rates"].items())
    assert beside.state_dict() == plain.state_dict()
    assert beside.summary().ability == plain.summary().ability


@pytest.mark.parametrize(("estimator", "thread"), [("paper", "hints_0"), ("shared-ability", "MainThread")])
async def test_only_slow_estimators_use_another_thread(
    estimator: EstimatorName, thread: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hints, seen = controller(estimator), []
    observe = hints._estimator.observe

    def watched(*arguments: Any) -> bool:
        seen.append(threading.current_thread().name)
        return observe(*arguments)

    monkeypatch.setattr(hints._estimator, "observe", watched)
    await hints.observe_beside("a", 0.5, 4, 8)

    assert seen == [thread]


async def test_the_event_loop_continues_during_a_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, served, fit = asyncio.get_running_loop(), threading.Event(), irt.fit_paper

    def waiting(*arguments: Any) -> irt.Curve:
        loop.call_soon_threadsafe(served.set)
        assert served.wait(30), "nothing else ran"
        return fit(*arguments)

    monkeypatch.setattr(irt, "fit_paper", waiting)

    await controller("paper").observe_beside("a", 0.5, 4, 8)


async def test_a_round_that_cannot_be_used_is_counted_once_and_seconds_are_those_of_the_fits() -> None:
    hints = controller("paper")
    await hints.observe_beside("a", float("nan"), 4, 8)
    await hints.observe_beside("a", 0.5, 4, 8)

    assert hints.summary().fallbacks == 1
    assert hints.summary().fit_seconds > 0
