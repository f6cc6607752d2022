"""The training loop: sample with hints, verify, learn, push the new weights to the engine, repeat."""

import asyncio
import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from seele_trainer.collect import Collected, Collector
from seele_trainer.config import TrainerConfig
from seele_trainer.data.problem import TokenizedProblem
from seele_trainer.data.sampler import ProblemSampler
from seele_trainer.evaluation.evaluate import Examiner, LoadedBenchmark
from seele_trainer.learner.learner import Abandoned, UpdateStats, never
from seele_trainer.learner.thread import LearnerThread, make_decoy
from seele_trainer.report.page import write_report
from seele_trainer.rollout.grading import Grader
from seele_trainer.rollout.protocol import Canary, Decoy, RolloutEngine, RolloutUnavailable, WeightSync
from seele_trainer.run_folder.attempt import Attempt
from seele_trainer.run_folder.checkpoint import CheckpointError, Checkpoints, DamagedCheckpoint, RunState
from seele_trainer.run_folder.durable import put_in_place
from seele_trainer.run_folder.records import Descent, EvaluationRecord, StepPhase
from seele_trainer.step_record import StepFacts, descents, measured_groups, sample_rollouts, sequences, summarise
from seele_trainer.stopping import StopCost, where_it_resumes
from seele_trainer.strategies.base import Strategy
from seele_trainer.telemetry.recorder import Recorder
from seele_trainer.verify.pool import VerifierPool
from seele_trainer.weights.directory import WeightsDirectory

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Interrupted(Exception):
    """The run was asked to stop. Its state is saved, and the same command resumes it."""


@dataclass(frozen=True)
class RunParts:
    """Everything that the loop uses, built in `assemble.py`."""

    config: TrainerConfig
    run_dir: Path
    attempt: Attempt
    problems: Sequence[TokenizedProblem]
    data_fingerprint: str
    benchmarks: Sequence[LoadedBenchmark]
    sampler: ProblemSampler
    strategy: Strategy
    learner: LearnerThread
    engine: RolloutEngine
    verifier: VerifierPool
    grader: Grader
    collector: Collector
    weights: WeightsDirectory
    checkpoints: Checkpoints
    recorder: Recorder
    decode: Callable[[Sequence[int]], str]
    canary_sequences: tuple[tuple[int, ...], ...]
    canary_tolerance: float
    answer_tokens: int


class Loop:
    """One run, from its last checkpoint or its beginning to its end."""

    def __init__(
        self,
        parts: RunParts,
        stop: asyncio.Event,
        clock: Callable[[], float] = time.monotonic,
        grace_seconds: float = math.inf,
    ) -> None:
        """`grace_seconds` is the time from a stop until this process is killed."""
        self._parts = parts
        self._stop = stop
        self._clock = clock
        self._seconds: defaultdict[StepPhase, float] = defaultdict(float)
        self._boundary = self._state_at(step=0)
        self._saved_step, self._saved_time = 0, clock()
        self._decoy: Decoy | None = None
        self._cost = StopCost(grace_seconds, parts.config.training.updates_per_step)
        # Between the first update of a step and its end the learner is ahead of the boundary, so it cannot be saved.
        self._ahead = False

    async def run(self) -> None:
        """Train to the last step. If the stop event is set, save the last finished step and raise Interrupted.

        A stop is noticed within a micro-batch. Only once weights have changed is the step finished first.
        """
        announcing = asyncio.create_task(self._announce_stop())
        try:
            await self._train()
        finally:
            announcing.cancel()
        await self._finish()

    async def _train(self) -> None:
        steps = self._parts.config.training.steps
        try:
            await self._until_stopped(self._start())
            self._cost.expect(self._parts.learner.checkpoint_bytes)
            self._show_cost()
            await self._resume()
            sync = await self._push_weights(version=self._boundary.policy_version)
            await self._evaluate_if_due(sync)
            while self._boundary.step < steps:
                await self._step(self._boundary.step + 1)
        except (Interrupted, Abandoned, RolloutUnavailable) as reason:
            # If the servers are lost, what has been learnt is still valid.
            if not self._ahead:
                await self._save()
            if isinstance(reason, RolloutUnavailable):
                raise
            raise Interrupted(f"stopped on request; {where_it_resumes(self._saved_step)}") from reason

    async def _announce_stop(self) -> None:
        """Say what a stop does, as soon as it is requested. Warnings are shown to the user of `seele run` too."""
        await self._stop.wait()
        self._parts.recorder.update_progress(stopping=True)
        fate = self._cost.fate(self._boundary.step, self._saved_step, ahead=self._ahead)
        logger.warning("stopping: %s", fate)

    def _show_cost(self) -> None:
        self._parts.recorder.update_progress(stop_seconds=self._cost.longest)
        if warning := self._cost.warning():
            logger.warning("%s", warning)

    async def _start(self) -> None:
        """Start servers, verifier and learner at once: each takes tens of seconds."""
        async with asyncio.TaskGroup() as starting:
            for start in (self._parts.engine.start, self._parts.verifier.start, self._parts.learner.start):
                starting.create_task(start())

    async def _step(self, step: int) -> None:
        parts, began = self._parts, time.monotonic()
        problems = [parts.problems[index] for index in parts.sampler.next_batch()]
        requests_before = _requests(parts.engine)
        parts.strategy.begin_step(step)
        with self._phase("rollout"):
            work = parts.collector.collect(parts.strategy, problems, step, answered=parts.recorder.heartbeat)
            collected = await self._until_stopped(work)
        with self._phase("train"):
            updates, gained = await self._learn_and_measure(step, problems, collected)
        summary = parts.strategy.hint_summary()
        parts.strategy.end_step()
        sync = await self._push_weights(version=step)
        self._seconds["rollout"] -= collected.waiting_seconds
        self._seconds["verify"] = collected.waiting_seconds
        self._boundary, self._ahead = self._state_at(step), False
        self._cost.trained(updates, sync.seconds)
        self._show_cost()
        facts = StepFacts(
            step=step,
            time=time.time(),
            updates=updates,
            sync=sync,
            hint_summary=summary,
            requests={name: count - requests_before[name] for name, count in _requests(parts.engine).items()},
            phase_seconds=dict(self._seconds),
            step_seconds=time.monotonic() - began,
            descents=gained,
        )
        parts.attempt.check()
        parts.recorder.record_step(summarise(parts.config, parts.strategy, collected, facts))
        count = parts.config.observability.sample_rollouts_per_step
        parts.recorder.record_samples(sample_rollouts(collected, step, count, parts.decode))
        # The time of an evaluation or a checkpoint from here on is part of the next step's line.
        self._seconds.clear()
        await self._evaluate_if_due(sync)
        if self._is_saved(step):
            await self._save()

    def _is_saved(self, step: int) -> bool:
        config = self._parts.config
        minutes = (self._clock() - self._saved_time) / 60
        due = step % config.checkpoints.every_steps == 0 or minutes >= config.checkpoints.every_minutes
        return due or step == config.training.steps

    async def _learn_and_measure(
        self, step: int, problems: Sequence[TokenizedProblem], collected: Collected
    ) -> tuple[list[UpdateStats], tuple[Descent, ...]]:
        """The step's updates and, if an evaluation follows, what they gained on its problems."""
        learner, strategy = self._parts.learner, self._parts.strategy
        groups = [group for rollouts in collected.rollouts for group in strategy.baseline_groups(rollouts)]
        measured = measured_groups(groups) if self._is_evaluated(step) else []
        if not measured:
            return await self._learn(step, problems, collected), ()
        # Not the sampler's log-probabilities: they differ from the learner's by as much as an update changes them.
        before = await learner.logprobs(sequences(measured), self._stop.is_set)
        self._parts.recorder.heartbeat()
        updates = await self._learn(step, problems, collected)
        try:
            after = await learner.logprobs(sequences(measured), self._stop.is_set)
        except Abandoned:
            # The step is what must be saved; its gain is only reported.
            return updates, ()
        return updates, descents(measured, before, after)

    async def _learn(self, step: int, problems: Sequence[TokenizedProblem], collected: Collected) -> list[UpdateStats]:
        """One optimizer update for every `problemsPerUpdate` problems of the step (64 of 256 in the paper).

        Raises Abandoned if a stop comes before the first of them has changed the weights.
        """
        size = self._parts.config.training.problems_per_update
        pairs = list(zip(problems, collected.rollouts, strict=True))
        updates: list[UpdateStats] = []
        for start in range(0, len(pairs), size):
            chunk = pairs[start : start + size]
            samples = [sample for pair in chunk for sample in self._parts.strategy.samples(*pair)]
            stopping = never if self._ahead else self._stop.is_set
            updates.append(await self._parts.learner.update(samples, stopping))
            self._ahead = True
            self._parts.recorder.update_progress(unsaved_step=step)
        return updates

    async def _push_weights(self, version: int) -> WeightSync:
        """Push the current weights to every engine, verified by a canary that the trainer has scored itself."""
        parts, began = self._parts, time.monotonic()
        with self._phase("sync"):
            logprobs = await parts.learner.logprobs(parts.canary_sequences)
            untie = parts.config.rollout.untie_embeddings
            canary = Canary(
                sequences=parts.canary_sequences,
                logprobs=tuple(tuple(map(float, row)) for row in logprobs),
                tolerance=parts.canary_tolerance,
                decoy=self._decoy,
            )
            if self._decoy is None:
                self._decoy = await make_decoy(parts.learner, canary, parts.weights.decoy, untie=untie)
                canary = replace(canary, decoy=self._decoy)
            await parts.learner.export(parts.weights.staged(version), untie=untie)
            sync = await parts.engine.update_weights(parts.weights.publish(version), version, canary)
            parts.weights.prune(keep=2)
        return replace(sync, seconds=time.monotonic() - began)

    async def _evaluate_if_due(self, sync: WeightSync) -> None:
        """Evaluate before the first step, after the last one and every `evaluation.everySteps`."""
        step, last = self._boundary.step, self._parts.recorder.last_evaluation
        # An earlier attempt may have evaluated this policy, or may have been stopped before it did.
        if self._is_evaluated(step) and (last is None or last.step != step):
            await self._until_stopped(self._evaluate(sync))

    def _is_evaluated(self, step: int) -> bool:
        config = self._parts.config
        every = config.evaluation.every_steps
        return step == 0 or step >= config.training.steps or (every > 0 and step % every == 0)

    async def _evaluate(self, sync: WeightSync) -> None:
        parts, began = self._parts, time.monotonic()
        if not parts.benchmarks:
            return
        with self._phase("eval"):
            examiner = Examiner(
                parts.engine,
                parts.grader,
                temperature=parts.config.evaluation.temperature,
                max_tokens=parts.answer_tokens,
                seed=parts.config.training.seed,
                answered=lambda _: parts.recorder.heartbeat(),
            )
            scores = await examiner.scores(parts.benchmarks)
        parts.attempt.check()
        parts.recorder.record_evaluation(
            EvaluationRecord(
                step=self._boundary.step,
                time=time.time(),
                policy_version=sync.version,
                seconds=time.monotonic() - began,
                scores=scores,
            )
        )

    async def _resume(self) -> None:
        parts = self._parts
        state = await self._load_learner()
        if state is None:
            parts.recorder.truncate_after(0)
            return
        parts.sampler.load_state_dict(state.sampler)
        parts.strategy.load_state_dict(state.strategy)
        parts.recorder.truncate_after(state.step)
        parts.recorder.update_progress(last_checkpoint_step=state.step)
        self._boundary, self._saved_step, self._saved_time = state, state.step, self._clock()
        logger.info("resuming after step %d", state.step)

    async def _load_learner(self) -> RunState | None:
        """Load the newest checkpoint that is whole into the learner; None before the first one."""
        parts = self._parts
        while (found := parts.checkpoints.latest()) is not None:
            folder, state = found
            self._check_data(folder, state)
            try:
                await parts.learner.load(folder / "learner")
            except DamagedCheckpoint as damage:
                parts.checkpoints.set_aside(folder, damage)
                continue
            return state
        return None

    def _check_data(self, folder: Path, state: RunState) -> None:
        if state.data_fingerprint != self._parts.data_fingerprint:
            raise CheckpointError(
                f"the training problems have changed since {folder} was written: restore them, "
                "or start a new run in another folder"
            )

    async def _save(self) -> None:
        """Write a checkpoint of the last step boundary; rollouts sampled since then are lost."""
        if self._boundary.step == self._saved_step:
            return
        began = time.monotonic()
        with self._phase("checkpoint"):
            folder = self._parts.checkpoints.begin(self._boundary.step)
            await self._parts.learner.save(folder / "learner")
            self._parts.checkpoints.commit(self._boundary)
        self._saved_step, self._saved_time = self._boundary.step, self._clock()
        self._parts.recorder.update_progress(last_checkpoint_step=self._saved_step, unsaved_step=None)
        self._cost.saved(time.monotonic() - began)
        self._show_cost()

    async def _finish(self) -> None:
        """Write the trained model, as a Hugging Face folder like the original, and the report."""
        parts = self._parts
        parts.attempt.check()
        for pattern in (".final.*", "final.attempt-*"):
            for leftover in parts.run_dir.glob(pattern):
                shutil.rmtree(leftover, ignore_errors=True)
        staged = parts.run_dir / f"final.attempt-{parts.attempt.number}"
        await parts.learner.export(staged, untie=False)
        put_in_place(staged, parts.run_dir / "final", before_rename=parts.attempt.check)
        await asyncio.to_thread(write_report, parts.run_dir)

    def _state_at(self, step: int) -> RunState:
        return RunState(
            step=step,
            policy_version=step,
            data_fingerprint=self._parts.data_fingerprint,
            sampler=self._parts.sampler.state_dict(),
            strategy=self._parts.strategy.state_dict(),
        )

    async def _until_stopped(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Do interruptible work. If the stop event comes first, cancel the work and raise Interrupted."""
        task, stopped = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if task.done():
            return task.result()
        task.cancel()
        await asyncio.wait({task})
        raise Interrupted("stopped on request")

    @contextmanager
    def _phase(self, phase: StepPhase) -> Iterator[None]:
        began = time.monotonic()
        self._parts.recorder.set_phase(phase)
        try:
            yield
        finally:
            self._seconds[phase] += time.monotonic() - began


def _requests(engine: RolloutEngine) -> dict[str, int]:
    return {"ok": engine.counts.ok, "retried": engine.counts.retried, "failed": engine.counts.failed}
