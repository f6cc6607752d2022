"""Samples a batch of problems: the rounds of a problem are sequential, and problems never wait for each other."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Completion, RolloutEngine, Sampling, derive_seed
from seele_trainer.strategies.base import Rollout, RoundPlan, Strategy

PROBE_ROUND = -1


@dataclass(frozen=True)
class Collected:
    """The result of one step's sampling: rollouts by problem in the order of the batch, and probes.

    `waiting_seconds` is the wall-clock time in which answers were verified and no completion was sampled.
    """

    rollouts: list[list[Rollout]]
    probes: list[Rollout]
    waiting_seconds: float


class BusyClock:
    """Measures the wall-clock time in which at least one marked activity is running."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._running = 0
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Mark an activity."""
        if self._running == 0:
            self._since = time.monotonic()
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            if self._running == 0:
                self.seconds += time.monotonic() - self._since


class Collector:
    """Samples and verifies rollouts for a strategy."""

    def __init__(
        self,
        config: TrainerConfig,
        engine: RolloutEngine,
        grader: Grader,
        context_length: int,
    ) -> None:
        self._config = config
        self._engine = engine
        self._grader = grader
        self._context_length = context_length

    async def collect(
        self,
        strategy: Strategy,
        problems: Sequence[TokenizedProblem],
        step: int,
        answered: Callable[[], None] = lambda: None,
    ) -> Collected:
        """All rollouts of one step. If a problem fails, the others are cancelled and its error is raised.

        `answered` is called each time the rollouts of a round have been verified.
        """
        began = time.monotonic()
        sampling = BusyClock()
        # The in-process engine answers one request at a time anyway. With one problem after the other, the controller that
        # they share learns in a fixed order, which makes the whole run reproducible bit for bit.
        concurrent = (
            1 if self._config.rollout.engine == "transformers" else self._config.rollout.max_concurrent_problems
        )
        places = asyncio.Semaphore(concurrent)
        probed = problems[: self._config.hints.unhinted_probes]
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(self._roll_out(strategy, problem, step, places, sampling, answered))
                    for problem in problems
                ]
                probing = tasks.create_task(self._probe(probed, step, sampling))
        except ExceptionGroup as group:
            # If the engine is lost, every problem fails for the same reason.
            raise group.exceptions[0] from None
        return Collected(
            rollouts=[task.result() for task in running],
            probes=probing.result(),
            waiting_seconds=max(0.0, time.monotonic() - began - sampling.seconds),
        )

    async def _roll_out(
        self,
        strategy: Strategy,
        problem: TokenizedProblem,
        step: int,
        places: asyncio.Semaphore,
        clock: BusyClock,
        answered: Callable[[], None],
    ) -> list[Rollout]:
        done: list[Rollout] = []
        async with places:
            while (plan := strategy.next_round(problem, done)) is not None:
                prefix = (*problem.prompt, *problem.hint(plan.hint_length))
                with clock.running():
                    completions = await self._engine.generate(prefix, self._sampling(problem, plan, step))
                rollouts = await self._verify(problem, plan.round, plan.hint_length, completions)
                await strategy.observe_beside(problem, rollouts)
                answered()
                done += rollouts
        return done

    async def _probe(self, problems: Sequence[TokenizedProblem], step: int, clock: BusyClock) -> list[Rollout]:
        if not problems:
            return []
        longest = max(len(problem.prompt) for problem in problems)
        sampling = Sampling(
            n=1,
            max_tokens=min(self._config.rollout.max_completion_tokens, self._context_length - longest),
            temperature=self._config.rollout.temperature,
            seed=derive_seed(self._config.training.seed, step, "probe", PROBE_ROUND),
        )
        with clock.running():
            answers = await self._engine.generate_batch([problem.prompt for problem in problems], sampling)
        checked = await asyncio.gather(
            *(
                self._verify(problem, PROBE_ROUND, 0, completions)
                for problem, completions in zip(problems, answers, strict=True)
            )
        )
        return [rollout for rollouts in checked for rollout in rollouts]

    async def _verify(
        self, problem: TokenizedProblem, round_number: int, hint_length: int, completions: Sequence[Completion]
    ) -> list[Rollout]:
        graded = await self._grader.grade([(completion, problem.problem.answer) for completion in completions])
        rate = problem.rate_of(hint_length, self._config.hints.unit)
        return [
            Rollout(
                problem,
                round_number,
                hint_length,
                rate,
                one.completion,
                None if one.verdict is None else float(one.verdict),
                masked=one.masked,
            )
            for one in graded
        ]

    def _sampling(self, problem: TokenizedProblem, plan: RoundPlan, step: int) -> Sampling:
        room = self._context_length - len(problem.prompt) - plan.hint_length
        return Sampling(
            n=plan.rollouts,
            max_tokens=min(self._config.rollout.max_completion_tokens, room),
            temperature=self._config.rollout.temperature,
            seed=derive_seed(self._config.training.seed, step, problem.problem.id, plan.round),
        )
