"""The paper's estimator: after every round a least-squares fit to the step's rounds (Alg. 1 of arXiv 2509.06923)."""

from typing import Any

import numpy as np

from seele_trainer.hints import irt
from seele_trainer.hints.irt import Curve


class PaperEstimator:
    """Alg. 1: C is empty at the start of a step; the first rate is the last one predicted in the previous step.

    A new problem starts at `first_rate`, the paper's (|y| - 1) / |y| for solutions of |y| steps.
    """

    slow = True
    """Problems share nothing, and a fit takes 20 ms."""

    def __init__(self, target: float, first_rate: float) -> None:
        self._target = target
        self._first_rate = first_rate
        self._rates: dict[str, float] = {}
        self._rounds: dict[str, list[tuple[float, float, float]]] = {}
        self._curves: dict[str, tuple[float, float, float]] = {}

    def propose(self, problem_id: str) -> float:
        """The rate predicted after the problem's last round."""
        return self._rates.get(problem_id, self._first_rate)

    def observe(self, problem_id: str, rate: float, successes: float, trials: float) -> bool:
        """Append (p, a) to C, fit (Eq. 13) and predict the next rate."""
        rounds = self._rounds.setdefault(problem_id, [])
        rounds.append((rate, successes, trials))
        rates, right, counts = np.array(rounds).T
        curve = irt.fit_paper(rates, right / counts, counts)
        k, mu, b = (float(values[0]) for values in (curve.discrimination, curve.ability, curve.guessing))
        self._curves[problem_id] = (k, mu, b)
        self._rates[problem_id] = float(curve.rate_for(self._target)[0])
        return True

    def end_step(self) -> None:
        """Clear C and keep the predicted rates."""
        self._rounds.clear()
        self._curves.clear()

    def curves(self) -> Curve:
        """Curves of the problems observed in this step, fields of shape (problems,)."""
        return Curve(*np.array(list(self._curves.values()), dtype=np.float64).reshape(-1, 3).T)

    def state_dict(self) -> dict[str, Any]:
        """Predicted rates, and C and the curves of an unfinished step."""
        return {
            "rates": dict(self._rates),
            "rounds": {key: [list(point) for point in rounds] for key, rounds in self._rounds.items()},
            "curves": {key: list(curve) for key, curve in self._curves.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._rates = dict(state["rates"])
        self._rounds = {key: [(p, s, n) for p, s, n in rounds] for key, rounds in state["rounds"].items()}
        self._curves = {key: (k, mu, b) for key, (k, mu, b) in state["curves"].items()}
