"""The model's ability, which all problems share and which changes as the model learns.

A Kalman filter estimates its position and drift. Within a step the model does not change: problems send Gaussian
messages about the position, and the step ends with one update by their product. How fast ability moves is unknown too,
so several levels of process noise are weighted by how well they predicted.
"""

import math
from dataclasses import dataclass, field
from typing import Any

# Positions are minus the threshold of an average problem, expected at 0.75 before any data.
START, START_SD = -0.75, 0.3
START_DRIFT_SD = 0.03
# The share of the drift kept in the next step: learning slows down rather than stops.
DRIFT_KEPT = 0.98
# Deviations that one step adds to the position and to the drift: a jump of the position says nothing about its drift. A
# drift that is learned too slowly makes ability lag behind a model that learns fast, and every hint too long.
NOISE_LEVELS = (0.001, 0.004, 0.015, 0.06, 0.3)
DRIFT_NOISE = (0.00025, 0.001, 0.004, 0.004, 0.0)
# Weights of the levels forget the past over about ten steps, and none falls below its floor: if jumps were impossible,
# problems that all move together would each be treated as an exception.
MEMORY = 0.9
LEVEL_FLOOR = (0.02, 0.02, 0.02, 0.02, 0.01)
# Problems do not move exactly together, so even very many of them leave this much uncertainty.
OBSERVATION_SD = 0.005
RANGE = (-1.8, 1.2)


@dataclass(frozen=True)
class Message:
    """What one problem says about the position: a Gaussian by its precision and precision times mean."""

    precision: float = 0.0
    information: float = 0.0


NO_MESSAGE = Message()


@dataclass
class Ability:
    """Belief about the position and drift at the start of this step, and this step's messages."""

    position: float = START
    drift: float = 0.0
    position_var: float = START_SD**2
    covariance: float = 0.0
    drift_var: float = START_DRIFT_SD**2
    log_weights: list[float] = field(default_factory=lambda: [0.0] * len(NOISE_LEVELS))
    precision: float = 0.0
    information: float = 0.0
    _prior: float = field(init=False, repr=False, compare=False)
    """Precision of the position before this step's messages, cached because every round needs it."""

    def __post_init__(self) -> None:
        self._prior = self._prior_precision()

    def without(self, message: Message) -> tuple[float, float]:
        """Mean and variance of the position, given all messages but this one."""
        precision = self._prior + max(0.0, self.precision - message.precision)
        mean = (self._prior * self.position + self.information - message.information) / precision
        return min(RANGE[1], max(RANGE[0], mean)), 1.0 / precision

    def exchange(self, old: Message, new: Message) -> None:
        """Replace a problem's message by a new one."""
        self.precision += new.precision - old.precision
        self.information += new.information - old.information

    def end_step(self) -> None:
        """Apply the messages, then let the position drift to the next step."""
        if self.precision > 1e-9:
            self._update(self.information / self.precision, 1.0 / self.precision + OBSERVATION_SD**2)
        self.precision = self.information = 0.0
        self.position += self.drift
        self.position_var += 2.0 * self.covariance + self.drift_var
        self.covariance = DRIFT_KEPT * (self.covariance + self.drift_var)
        self.drift *= DRIFT_KEPT
        self.drift_var *= DRIFT_KEPT**2
        self.position = min(RANGE[1], max(RANGE[0], self.position))
        self._prior = self._prior_precision()

    def _prior_precision(self) -> float:
        return 1.0 / (self.position_var + self._noise(self._weights()))

    def _update(self, measured: float, variance: float) -> None:
        surprise = measured - self.position
        for level, sd in enumerate(NOISE_LEVELS):
            spread = self.position_var + sd**2 + variance
            self.log_weights[level] = MEMORY * self.log_weights[level] - 0.5 * (
                math.log(spread) + min(surprise**2 / spread, 50.0)
            )
        best = max(self.log_weights)
        self.log_weights = [weight - best for weight in self.log_weights]
        weights = self._weights()
        levels = list(zip(weights, NOISE_LEVELS, DRIFT_NOISE, strict=True))
        position_var = self.position_var + self._noise(weights)
        drift_var = self.drift_var + sum(weight * drift_sd**2 for weight, _, drift_sd in levels)
        covariance = self.covariance + sum(weight * sd * drift_sd for weight, sd, drift_sd in levels)
        gain, drift_gain = position_var / (position_var + variance), covariance / (position_var + variance)
        self.position += gain * surprise
        self.drift += drift_gain * surprise
        self.position_var = (1.0 - gain) * position_var
        self.covariance = (1.0 - gain) * covariance
        self.drift_var = max(1e-12, drift_var - drift_gain * covariance)

    def _weights(self) -> list[float]:
        weights = [math.exp(weight) for weight in self.log_weights]
        total = sum(weights)
        floored = [weight / total + floor for weight, floor in zip(weights, LEVEL_FLOOR, strict=True)]
        total = sum(floored)
        return [weight / total for weight in floored]

    def _noise(self, weights: list[float]) -> float:
        return sum(weight * sd**2 for weight, sd in zip(weights, NOISE_LEVELS, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """All numbers of the belief."""
        numbers = {name: value for name, value in self.__dict__.items() if name != "_prior"}
        return {**numbers, "log_weights": list(self.log_weights)}
