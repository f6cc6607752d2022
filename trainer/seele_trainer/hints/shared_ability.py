"""The default estimator: one ability of the model, and a difficulty, discrimination and guessing of each problem.

The threshold of a problem, the rate at which its curve is halfway up, is its difficulty minus the current ability.
Evidence about the ability from any problem therefore changes the proposals of all others, and a new problem starts from
the population's difficulties. Ability is constant within a step: it is the centre of a star whose leaves are the step's
problems, and each leaf sends it a Gaussian message (expectation propagation). The proposal is the rate at which the
posterior predictive accuracy, not that of one best curve, equals the target.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seele_trainer.hints import grid
from seele_trainer.hints.ability import NO_MESSAGE, Ability, Message
from seele_trainer.hints.irt import Curve, Floats
from seele_trainer.hints.population import CENTRE_SD, CENTRES, Population

# Knowledge about a problem fades: the deviation of its difficulty grows by this much per step and by this share of the
# movement of ability, since problems do not all move alike; this share of its curve's shape returns to the population's.
FADE_SD = 0.003
FADE_SHARE = 0.25
SHAPE_FADE = 0.2
# A known problem may also have changed entirely: weight and width of that case.
SURPRISE, SURPRISE_SD = 0.02, 0.2
KEPT_ROUNDS = 16
DIGITS = 6


@dataclass(frozen=True)
class Round:
    """Rollouts after one hint: its rate, and how many of them succeeded."""

    rate: float
    successes: float
    trials: float


@dataclass(frozen=True)
class Explanation:
    """What the estimator knows about a problem: the posterior of its accuracy at the current ability, and its kept rounds.

    `accuracy` is the posterior mean, `low` and `high` its quantiles `grid.BAND`: shape (rates,), at `grid.RATES`.
    `proposed` is the rate of the next hint. `earlier` and `latest` are rounds, oldest first; the latest are those of the
    last step with the problem.
    """

    problem_id: str
    accuracy: Floats
    low: Floats
    high: Floats
    proposed: float
    earlier: tuple[Round, ...]
    latest: tuple[Round, ...]


@dataclass(frozen=True)
class Record:
    """What is kept about a problem after a step: difficulty, shape and the last rounds (rate, successes, trials).

    `latest` is the number of rounds of that step; 0 in states saved by versions that did not record it.
    """

    difficulty: float
    variance: float
    discrimination: tuple[float, ...]
    guessing: tuple[float, ...]
    ability: float
    step: int
    rounds: tuple[tuple[float, float, float], ...]
    latest: int = 0


@dataclass
class Visit:
    """A problem in the current step. Difficulty is a mixture of Gaussians; `log_likelihood` has the grid's shape.

    `evidence` (thresholds), `slope_mass` (k, thresholds) and `guess_mass` (thresholds) are the likelihood times the
    prior of (k, b), summed over the other axes.
    """

    weights: Floats
    means: Floats
    variances: Floats
    shape_prior: Floats
    fresh: bool
    log_likelihood: Floats = field(default_factory=lambda: np.zeros(grid.SHAPE))
    rounds: list[tuple[float, float, float]] = field(default_factory=list)
    message: Message = NO_MESSAGE
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        self.refresh()

    def refresh(self) -> None:
        """Recompute the sums after a change of `log_likelihood`."""
        joint = np.exp(self.log_likelihood - self.log_likelihood.max()) * self.shape_prior
        total = joint.sum(axis=0)
        guessed = (grid.GUESSING @ joint.reshape(grid.SHAPE[0], -1)).reshape(total.shape)
        self.evidence: Floats = total.sum(axis=0)
        self.guess_mass: Floats = guessed.sum(axis=0)
        self.slope_mass: Floats = total - guessed
        self.joint: Floats = joint

    def curves(self, thresholds: Floats) -> Floats:
        """Posterior of the grid's curves, given the posterior of the threshold."""
        return np.asarray(self.joint * (thresholds / np.maximum(self.evidence, 1e-300)))

    def see(self, rate: float, successes: float, trials: float) -> None:
        """Add one round."""
        self.rounds.append((rate, successes, trials))
        self.log_likelihood += grid.log_likelihood(rate, successes, trials)
        self.refresh()


@dataclass(frozen=True)
class Belief:
    """Posterior of one visit, given the ability that the other problems imply: moments by component of the mixture."""

    density: Floats
    """(components, thresholds), not normalised."""
    components: Floats
    """Posterior weight of each component."""
    ability: float
    ability_var: float
    difficulty: float
    difficulty_var: float

    @property
    def thresholds(self) -> Floats:
        """Posterior of the threshold on the grid."""
        return np.asarray(self.density.sum(axis=0) / self.density.sum())


def prior_density(visit: Visit, mean: float, variance: float) -> Floats:
    """Prior of (component, threshold) for an ability with this mean and variance, not normalised."""
    spread = visit.variances + variance
    centre = np.minimum(np.maximum(visit.means - mean, grid.THRESHOLD[0]), grid.THRESHOLD[-1])
    scaled = (grid.THRESHOLD - centre[:, None]) ** 2 / spread[:, None]
    return np.asarray(np.exp(-0.5 * scaled) * (visit.weights / np.sqrt(spread))[:, None] + 1e-12)


def believe(visit: Visit, mean: float, variance: float) -> Belief:
    """Condition ability and difficulty, Gaussian in each component, on the evidence about their difference."""
    density = prior_density(visit, mean, variance) * visit.evidence
    mass, first, second = (density @ grid.THRESHOLD_MOMENTS).T
    weight = mass / mass.sum()
    safe = np.maximum(mass, 1e-300)
    threshold = first / safe
    spread = visit.variances + variance
    residual = threshold - (visit.means - mean)
    shrink = spread - (second / safe - threshold**2)

    def moments(prior_mean: Floats | float, prior_var: Floats | float, sign: float) -> tuple[float, float]:
        gain = prior_var / spread
        means = prior_mean + sign * gain * residual
        variances = prior_var - gain**2 * shrink
        centre = float(weight @ means)
        return centre, max(1e-6, float(weight @ (variances + (means - centre) ** 2)))

    return Belief(density, weight, *moments(mean, variance, -1.0), *moments(visit.means, visit.variances, 1.0))


class SharedAbilityEstimator:
    """Item response theory over time. A problem's state is one `Record`; its cost does not depend on its history."""

    slow = False

    def __init__(self, target: float) -> None:
        self._target = target
        self._step = 0
        self._ability = Ability()
        self._population = Population.unknown()
        self._records: dict[str, Record] = {}
        self._visits: dict[str, Visit] = {}

    def propose(self, problem_id: str) -> float:
        """The rate whose posterior predictive accuracy is the target."""
        return self._propose(self._visit(problem_id))

    def _propose(self, visit: Visit) -> float:
        thresholds = prior_density(visit, *self._ability.without(visit.message)).sum(axis=0)
        total = float(thresholds @ visit.evidence)
        rate = grid.rate_for(
            self._target, visit.slope_mass * (thresholds / total), float(thresholds @ visit.guess_mass) / total
        )
        return min(visit.bounds[1], max(visit.bounds[0], rate))

    def observe(self, problem_id: str, rate: float, successes: float, trials: float) -> bool:
        """Add a round to its problem, and send the ability the problem's new message."""
        visit = self._visit(problem_id)
        # A round far from the proposal may mainly show that the curve is steep. In any case, a round that failed entirely
        # never shortens the next hint, and one that succeeded entirely never lengthens it.
        before = self.propose(problem_id) if successes in (0.0, trials) else 0.0
        visit.bounds = (before if successes == 0.0 else 0.0, before if successes == trials else 1.0)
        visit.see(rate, successes, trials)
        mean, variance = self._ability.without(visit.message)
        belief = believe(visit, mean, variance)
        precision = 1.0 / belief.ability_var - 1.0 / variance
        message = NO_MESSAGE
        if precision > 0.0:
            message = Message(precision, belief.ability / belief.ability_var - mean / variance)
        self._ability.exchange(visit.message, message)
        visit.message = message
        return True

    def end_step(self) -> None:
        """Keep each problem's record, count new problems into the population, and let ability drift."""
        position, _ = self._ability.without(NO_MESSAGE)
        for problem_id, visit in self._visits.items():
            if not visit.rounds:
                continue
            belief = believe(visit, *self._ability.without(visit.message))
            posterior = visit.curves(belief.thresholds)
            discrimination, guessing = posterior.sum(axis=(0, 2)), posterior.sum(axis=(1, 2))
            if visit.fresh:
                self._population.add(belief.components, discrimination, guessing)
            before = self._records[problem_id].rounds if problem_id in self._records else ()
            self._records[problem_id] = Record(
                difficulty=belief.difficulty,
                variance=belief.difficulty_var,
                discrimination=tuple(np.round(discrimination, DIGITS).tolist()),
                guessing=tuple(np.round(guessing, DIGITS).tolist()),
                ability=position,
                step=self._step,
                rounds=(*before, *visit.rounds)[-KEPT_ROUNDS:],
                latest=min(len(visit.rounds), KEPT_ROUNDS),
            )
        self._visits.clear()
        self._ability.end_step()
        self._population.end_step()
        self._step += 1

    def curves(self) -> Curve:
        """Posterior mean curves of the problems observed in this step, fields of shape (problems,)."""
        rows = []
        for visit in self._visits.values():
            if visit.rounds:
                belief = believe(visit, *self._ability.without(visit.message))
                posterior = visit.curves(belief.thresholds)
                log_k = posterior.sum(axis=(0, 2)) @ np.log(grid.DISCRIMINATION)
                rows.append(
                    (np.exp(log_k), -belief.thresholds @ grid.THRESHOLD, posterior.sum(axis=(1, 2)) @ grid.GUESSING)
                )
        return Curve(*np.array(rows, dtype=np.float64).reshape(-1, 3).T)

    def difficulties(self) -> dict[str, float]:
        """Difficulty of every problem with a record."""
        return {problem_id: record.difficulty for problem_id, record in self._records.items()}

    def explain(self, problem_id: str) -> Explanation:
        """What is known about a problem that was observed before. Raises KeyError for others."""
        record = self._records[problem_id]
        visit = self._visits.get(problem_id) or self._begin(record)
        thresholds = prior_density(visit, *self._ability.without(visit.message)).sum(axis=0) * visit.evidence
        mean, low, high = grid.band(visit.curves(thresholds / thresholds.sum()))
        rounds = [Round(*seen) for seen in (*record.rounds, *visit.rounds)]
        latest = len(rounds) - (len(visit.rounds) or record.latest)
        return Explanation(
            problem_id, mean, low, high, self._propose(visit), tuple(rounds[:latest]), tuple(rounds[latest:])
        )

    def _visit(self, problem_id: str) -> Visit:
        if problem_id not in self._visits:
            self._visits[problem_id] = self._begin(self._records.get(problem_id))
        return self._visits[problem_id]

    def _begin(self, record: Record | None) -> Visit:
        """The prior of a problem at the start of a step: its faded record, or else the population's."""
        shape_k = self._population.discrimination / self._population.discrimination.sum()
        shape_b = self._population.guessing / self._population.guessing.sum()
        if record is None:
            weights = self._population.difficulty / self._population.difficulty.sum()
            return Visit(
                weights,
                CENTRES,
                np.full_like(CENTRES, CENTRE_SD**2),
                shape_b[:, None, None] * shape_k[:, None],
                fresh=True,
            )
        shape_k = SHAPE_FADE * shape_k + (1.0 - SHAPE_FADE) * np.array(record.discrimination)
        shape_b = SHAPE_FADE * shape_b + (1.0 - SHAPE_FADE) * np.array(record.guessing)
        age = self._step - record.step
        moved = self._ability.position - record.ability
        variance = record.variance + FADE_SD**2 * age + (FADE_SHARE * moved) ** 2
        return Visit(
            weights=np.array([1.0 - SURPRISE, SURPRISE]),
            means=np.full(2, record.difficulty),
            variances=np.array([variance, variance + SURPRISE_SD**2]),
            shape_prior=shape_b[:, None, None] * shape_k[:, None],
            fresh=False,
        )

    def state_dict(self) -> dict[str, Any]:
        """Ability, population and records, and the rounds and messages of an unfinished step."""
        return {
            "step": self._step,
            "ability": self._ability.state_dict(),
            "population": self._population.state_dict(),
            "records": {key: dict(record.__dict__) for key, record in self._records.items()},
            "visits": {
                key: {
                    "rounds": [list(point) for point in visit.rounds],
                    "message": [visit.message.precision, visit.message.information],
                    "bounds": list(visit.bounds),
                }
                for key, visit in self._visits.items()
                if visit.rounds
            },
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict`."""
        self._step = state["step"]
        self._ability = Ability(**{**state["ability"], "log_weights": list(state["ability"]["log_weights"])})
        self._population = Population.from_state(state["population"])
        self._records = {
            key: Record(
                **{
                    **record,
                    "discrimination": tuple(record["discrimination"]),
                    "guessing": tuple(record["guessing"]),
                    "rounds": tuple((p, s, n) for p, s, n in record["rounds"]),
                }
            )
            for key, record in state["records"].items()
        }
        self._visits = {}
        for key, saved in state["visits"].items():
            visit = self._visit(key)
            for rate, successes, trials in saved["rounds"]:
                visit.see(rate, successes, trials)
            visit.message = Message(*saved["message"])
            low, high = saved["bounds"]
            visit.bounds = (low, high)
