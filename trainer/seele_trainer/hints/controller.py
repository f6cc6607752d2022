"""The hint controller proposes the rate of every problem's next round, and learns from the result.

After a round that was too hard the next hint is LONGER; after one that was too easy, shorter.
"""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, TypeAlias

from seele_trainer.hints.irt import Curve
from seele_trainer.hints.paper import PaperEstimator
from seele_trainer.hints.shared_ability import SharedAbilityEstimator
from seele_trainer.termination import RefusedInput


class Estimator(Protocol):
    """Decides hint rates. Its arguments are valid: rates in [0, 1], 0 <= successes <= trials, trials > 0."""

    slow: bool
    """Whether `observe` computes for tens of milliseconds. Then it may run in a thread while other problems propose."""

    def propose(self, problem_id: str) -> float:
        """The next rate of a problem, in [0, 1]."""

    def observe(self, problem_id: str, rate: float, successes: float, trials: float) -> bool:
        """Learn from a round. False if the estimator could not use it and ignored it."""

    def end_step(self) -> None:
        """End a training step: the model is about to change."""

    def curves(self) -> Curve:
        """Curves of the problems observed in this step, fields of shape (problems,)."""

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""


EstimatorName: TypeAlias = Literal["shared-ability", "paper"]

FORMAT = 1

# One thread, which keeps the order. It starts with the first fit.
_FITS = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hints")


class HintStateError(RefusedInput):
    """A saved state that this controller cannot resume from."""


@dataclass(frozen=True)
class ControllerSummary:
    """What the controller did since the last `end_step`.

    The curve parameters (Eq. 12) of the problems observed in this step, one value per problem, in the order of their
    first observation; the seconds spent in `propose` and `observe`; and the number of observations that could not be used.
    """

    discrimination: tuple[float, ...]
    ability: tuple[float, ...]
    guessing: tuple[float, ...]
    fit_seconds: float
    fallbacks: int


class HintController:
    """Per-problem hint rates that keep the accuracy of rollouts at `target`.

    `rounds` and `rollouts_per_round` (m and n) are the size of a step. `first_rate` is the paper's estimator's first rate
    of a problem. Whatever the data, no method raises and `propose` stays in [0, 1]. Calls for different problems may
    interleave; the rounds of one problem come in order. Raises ValueError for settings out of range.
    """

    def __init__(
        self,
        target: float,
        rounds: int,
        rollouts_per_round: int,
        estimator: EstimatorName = "shared-ability",
        *,
        first_rate: float = 0.8,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if not 0.0 < target < 1.0:
            raise ValueError(f"target accuracy is {target}: choose one between 0 and 1, such as 0.5")
        if rounds < 1 or rollouts_per_round < 1:
            raise ValueError(f"{rounds} rounds of {rollouts_per_round} rollouts: both must be at least 1")
        if not 0.0 <= first_rate <= 1.0:
            raise ValueError(f"first rate is {first_rate}: choose one in [0, 1], such as 0.8")
        self._name = estimator
        self._estimator: Estimator
        match estimator:
            case "paper":
                self._estimator = PaperEstimator(target, first_rate)
            case "shared-ability":
                self._estimator = SharedAbilityEstimator(target)
            case _:
                raise ValueError(f"unknown estimator {estimator!r}: use 'shared-ability' or 'paper'")
        self._clock = clock
        self._seconds = 0.0
        self._fallbacks = 0

    def propose(self, problem_id: str) -> float:
        """The hint rate of the problem's next round, in [0, 1]."""
        start = self._clock()
        rate = self._estimator.propose(problem_id)
        self._seconds += self._clock() - start
        return rate

    def observe(self, problem_id: str, rate: float, successes: float, trials: float) -> None:
        """Learn from a round: `successes` of `trials` rollouts succeeded after a hint of the rate actually shown.

        Meaningless data (not finite, no trials) are ignored and counted as a fallback; successes beyond the trials and
        rates outside [0, 1] are clamped.
        """
        self._count(*self._learn(problem_id, rate, successes, trials))

    async def observe_beside(self, problem_id: str, rate: float, successes: float, trials: float) -> None:
        """As `observe`, with the same result, but a fit that takes long does not hold up the event loop.

        Fits run one after another, in the order of the calls.
        """
        if not self._estimator.slow:
            self.observe(problem_id, rate, successes, trials)
            return
        fit = partial(self._learn, problem_id, rate, successes, trials)
        self._count(*await asyncio.get_running_loop().run_in_executor(_FITS, fit))

    def _learn(self, problem_id: str, rate: float, successes: float, trials: float) -> tuple[float, bool]:
        """Seconds spent, and whether the estimator could use the round."""
        if not (math.isfinite(rate) and math.isfinite(successes) and math.isfinite(trials)) or trials <= 0:
            return 0.0, False
        start = self._clock()
        used = self._estimator.observe(
            problem_id, min(1.0, max(0.0, float(rate))), min(float(trials), max(0.0, float(successes))), float(trials)
        )
        return self._clock() - start, used

    def _count(self, seconds: float, used: bool) -> None:
        self._seconds += seconds
        self._fallbacks += not used

    def summary(self) -> ControllerSummary:
        """What happened since the last `end_step`. Call it before the next one."""
        curves = self._estimator.curves()
        return ControllerSummary(
            discrimination=tuple(curves.discrimination.tolist()),
            ability=tuple(curves.ability.tolist()),
            guessing=tuple(curves.guessing.tolist()),
            fit_seconds=self._seconds,
            fallbacks=self._fallbacks,
        )

    def end_step(self) -> None:
        """End a training step: the model changes now, so earlier rounds are out of date."""
        self._estimator.end_step()
        self._seconds = 0.0
        self._fallbacks = 0

    def state_dict(self) -> dict[str, Any]:
        """JSON-serialisable state; a controller that loads it makes bit-identical proposals."""
        return {"format": FORMAT, "estimator": self._name, "state": self._estimator.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`. Raises HintStateError for a state of another estimator or format."""
        if state.get("format") != FORMAT or state.get("estimator") != self._name:
            saved = f"format {state.get('format')} of estimator {state.get('estimator')!r}"
            raise HintStateError(
                f"the saved hint state is {saved}, but this run needs format {FORMAT} of {self._name!r}: "
                "resume with the same estimator, or start a new run"
            )
        self._estimator.load_state_dict(state["state"])
