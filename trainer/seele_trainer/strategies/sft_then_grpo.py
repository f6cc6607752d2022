"""SFT, then GRPO: how most models are trained, and hard to beat when done right (arXiv 2604.23747)."""

from collections.abc import Sequence

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.learner.sample import Sample
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy
from seele_trainer.strategies.grpo import Grpo
from seele_trainer.strategies.sft import Sft


class SftThenGrpo(Strategy):
    """SFT in the first `training.sftThenGrpo.sftShare` of the steps, GRPO in the others.

    `learner/learner.py: learning_rate` gives each phase its own schedule. The KL term is to the run's initial model, not to
    the model at the end of SFT.
    """

    def __init__(self, config: TrainerConfig) -> None:
        super().__init__(config)
        self._sft, self._grpo = Sft(config), Grpo(config)

    @property
    def _now(self) -> Sft | Grpo:
        return self._sft if self.step <= self.config.training.sft_steps else self._grpo

    def next_round(self, problem: TokenizedProblem, done: Sequence[Rollout]) -> RoundPlan | None:
        """Nothing in the first steps, plain rollouts afterwards."""
        return self._now.next_round(problem, done)

    def samples(self, problem: TokenizedProblem, rollouts: Sequence[Rollout]) -> list[Sample]:
        """The solution in the first steps, the rollouts afterwards."""
        return self._now.samples(problem, rollouts)
