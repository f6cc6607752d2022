"""Records a run: JSON lines, Prometheus metrics, trackers, and the progress for /progress and the live display."""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from seele_trainer.config import TrainerConfig
from seele_trainer.formatting import amount, duration, percent
from seele_trainer.rollout.protocol import RolloutServer
from seele_trainer.run_folder.journal import Journal, read_records
from seele_trainer.run_folder.records import (
    EvaluationRecord,
    Progress,
    SampleRollout,
    StepPhase,
    StepRecord,
    TrainerPhase,
)
from seele_trainer.telemetry.collector import RunCollector
from seele_trainer.telemetry.definitions import EVALUATION_METRICS, STEP_METRICS, Moment
from seele_trainer.telemetry.metric import scalars
from seele_trainer.telemetry.trackers import BackgroundTracker, open_trackers, require_packages

HEALTH_GRACE_SECONDS = 300.0
"""Time without a heartbeat, beyond the longest wait that the configuration allows, after which a run counts as stuck."""
WINDOW = 20
"""Steps in a moving average: enough to smooth it, few enough to follow shrinking completions."""
SECONDS_BETWEEN_LINES = 5.0
"""Time between two lines about the preparation of the data."""

logger = logging.getLogger(__name__)


class Recorder:
    """Records what a run does; the first trainer process has one.

    If the folder has files of an earlier attempt, they are continued: incomplete lines are removed, and counters start
    with all steps ever made. Call `truncate_after` with the step of the loaded checkpoint (0 without one) before the
    first record; it starts the trackers. Every call is a heartbeat for /healthz.

    Raises TrackerError if a requested tracker cannot start, JournalError if an earlier attempt's files cannot be read.
    """

    def __init__(
        self,
        run_dir: Path,
        config: TrainerConfig,
        *,
        attempt: int = 1,
        clock: Callable[[], float] = time.monotonic,
        calendar: Callable[[], float] = time.time,
    ) -> None:
        run_dir.mkdir(parents=True, exist_ok=True)
        self._run_dir = run_dir
        self._config = config
        self._clock = clock
        self._calendar = calendar
        self._progress_time = calendar()
        self._servers: Callable[[], Sequence[RolloutServer]] = tuple
        self._steps = Journal(run_dir / "metrics.jsonl")
        self._evaluations = Journal(run_dir / "eval.jsonl")
        self._samples = Journal(run_dir / "rollouts.jsonl")
        self._discarded = Journal(run_dir / "metrics.discarded.jsonl")
        require_packages(config.observability)
        self._collector = RunCollector(config, self._now)
        self.registry = self._collector.register()
        self._trackers: list[BackgroundTracker] | None = None
        self._recent: deque[StepRecord] = deque(maxlen=WINDOW)
        self._evaluated: list[EvaluationRecord] = []
        self._progress = Progress(
            name=config.name,
            attempt=attempt,
            step=0,
            steps=config.training.steps,
            phase="starting",
            target_accuracy=config.hints.target_accuracy,
        )
        waits = config.rollout
        self._silence_allowed = HEALTH_GRACE_SECONDS + max(
            waits.server_start_timeout_seconds,
            waits.server_retry_timeout_seconds,
            waits.sync_timeout_seconds,
            waits.request_timeout_seconds,
        )
        self.heartbeat()
        self._restore()

    def truncate_after(self, step: int) -> None:
        """Remove records of steps after `step`, which the run is about to repeat, and start the trackers.

        Removed steps move to metrics.discarded.jsonl: counters still include them, so that they never fall.
        """
        records = read_records(self._steps.path, StepRecord)
        repeated = [record for record in records if record.step > step]
        resumed = bool(records) or bool(self._evaluated)
        if repeated:
            self._discarded.append(*repeated)
            records = [record for record in records if record.step <= step]
            self._steps.replace(*records)
        for journal, kind in ((self._evaluations, EvaluationRecord), (self._samples, SampleRollout)):
            kept: Sequence[Any] = read_records(journal.path, kind)
            if any(record.step > step for record in kept):
                journal.replace(*(record for record in kept if record.step <= step))
        self._show_latest(records)
        self._start_trackers(step if resumed else None)
        self.heartbeat()

    def record_problems(self, revealable: Sequence[float]) -> None:
        """Record the share of each training problem's solution that hints may show."""
        self._collector.count_problems(revealable)
        if revealable:
            tenth, half = (percent(float(share)) for share in np.quantile(revealable, (0.1, 0.5)))
            logger.info(
                "hints may show %s of a solution on average; at most %s in a tenth of the problems, at least %s in half",
                percent(float(np.mean(revealable))),
                tenth,
                half,
            )

    def record_step(self, record: StepRecord) -> None:
        """Record a finished training step."""
        self._steps.append(record)
        self._collector.record(record)
        self._progress_time = self._calendar()
        self._recent.append(record)
        self._show_step(record)
        for tracker in self._started():
            tracker.log(record.step, scalars(STEP_METRICS, record))
        self.heartbeat()

    def record_evaluation(self, record: EvaluationRecord) -> None:
        """Record an evaluation."""
        self._evaluations.append(record)
        self._progress_time = self._calendar()
        self._evaluated.append(record)
        self._collector.show_evaluation(record)
        self._show_evaluation(record)
        for tracker in self._started():
            tracker.log(record.step, scalars(EVALUATION_METRICS, record))
        self.heartbeat()

    def record_samples(self, samples: Sequence[SampleRollout]) -> None:
        """Record rollouts as text."""
        self._samples.append(*samples)
        self.heartbeat()

    def set_phase(self, phase: TrainerPhase | StepPhase, message: str = "") -> None:
        """Set what the run is doing now."""
        # Verification overlaps sampling and is shown as part of it.
        self.update_progress(phase="rollout" if phase == "verify" else phase, message=message)

    def update_progress(self, **changes: Any) -> None:
        """Change fields of the progress, such as `last_checkpoint_step`. Raises ValidationError for an unknown field."""
        # Replaced as a whole: the server's threads read it without a lock.
        self._progress = Progress.model_validate({**self._progress.model_dump(), **changes})
        if "last_checkpoint_step" in changes:
            self._progress_time = self._calendar()
        self.heartbeat()

    def heartbeat(self) -> None:
        """Show that the run is alive in a long phase without records."""
        self._last_heartbeat = self._clock()

    def watch_servers(self, servers: Callable[[], Sequence[RolloutServer]]) -> None:
        """Set where to get the list of rollout servers; called by the HTTP server's threads."""
        self._servers = servers

    def servers(self) -> Sequence[RolloutServer]:
        """The current list of rollout servers."""
        return self._servers()

    def progress(self) -> Progress:
        """How far the run is."""
        return self._progress

    def problem(self) -> str | None:
        """Why the run is unhealthy: it failed, or its last heartbeat is too old; None if it is healthy."""
        progress = self._progress
        if progress.phase == "failed":
            return f"the run failed at step {progress.step}: {progress.message or 'see its log'}"
        silence = self._clock() - self._last_heartbeat
        if progress.phase == "done" or silence <= self._silence_allowed:
            return None
        return (
            f"no heartbeat for {silence:.0f} s (limit {self._silence_allowed:.0f} s), "
            f"in phase {progress.phase} after step {progress.step}"
        )

    @property
    def last_evaluation(self) -> EvaluationRecord | None:
        """The latest recorded evaluation."""
        return self._evaluated[-1] if self._evaluated else None

    def close(self) -> None:
        """Let trackers send their last values, and close the files."""
        for tracker in self._trackers or ():
            tracker.close()
        self._trackers = []
        for journal in (self._steps, self._evaluations, self._samples, self._discarded):
            journal.close()
        if self._discarded.path.stat().st_size == 0:
            self._discarded.path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _now(self) -> Moment:
        progress = self._progress
        return Moment(progress.attempt, progress.last_checkpoint_step or 0, self._progress_time, self.servers())

    def _restore(self) -> None:
        records = read_records(self._steps.path, StepRecord)
        for record in (*read_records(self._discarded.path, StepRecord), *records):
            self._collector.record(record, show=False)
        self._show_latest(records)

    def _show_latest(self, records: Sequence[StepRecord]) -> None:
        self._recent = deque(records, maxlen=WINDOW)
        self._evaluated = read_records(self._evaluations.path, EvaluationRecord)
        self._progress = self._progress.model_copy(update={"step": 0, "eta_seconds": None, "evaluation": {}})
        if self._evaluated:
            self._collector.show_evaluation(self._evaluated[-1])
            self._show_evaluation(self._evaluated[-1])
        if records:
            self._collector.record(records[-1], count=False)
            self._show_step(records[-1])

    def _show_step(self, record: StepRecord) -> None:
        changes: dict[str, Any] = {
            "step": record.step,
            "reward": record.reward,
            "accuracy_by_round": record.accuracy_by_round,
            "target_accuracy": record.target_accuracy,
            "hint_rate": record.hint_rate,
            "policy_version": record.policy_version,
            "tokens_per_second": _tokens_per_second(self._recent),
            "phase_seconds": record.phase_seconds,
            "eta_seconds": self._eta(),
        }
        if not self._evaluated:
            changes["accuracy"] = record.unhinted_accuracy
        self._progress = self._progress.model_copy(update=changes)

    def _show_evaluation(self, record: EvaluationRecord) -> None:
        scores = {title: score.greedy_accuracy for title, score in record.scores.items()}
        changes = {"accuracy": record.accuracy, "evaluation": scores, "eta_seconds": self._eta()}
        self._progress = self._progress.model_copy(update=changes)

    def _eta(self) -> float | None:
        steps, every = self._config.training.steps, self._config.evaluation.every_steps
        return remaining_seconds(self._recent, self._evaluated, steps, every)

    def _started(self) -> list[BackgroundTracker]:
        if self._trackers is None:
            self._start_trackers(None)
        return self._trackers or []

    def _start_trackers(self, resumed_step: int | None) -> None:
        if self._trackers is None:
            self._trackers = open_trackers(self._run_dir, self._config, resumed_step)


def remaining_evaluations(step: int, steps: int, every: int) -> int:
    """Evaluations still due after `step`: one every `every` steps (0: none in between) and one after the last step."""
    if step >= steps:
        return 0
    if every == 0:
        return 1
    return steps // every - step // every + (steps % every != 0)


def remaining_seconds(
    recent: Sequence[StepRecord], evaluations: Sequence[EvaluationRecord], steps: int, every: int
) -> float | None:
    """Expected seconds until the run is done, including evaluations; None before the first step.

    A step is expected to take the mean of the recent steps, an evaluation the mean of the last three.
    """
    if not recent:
        return None
    per_step = sum(record.training_seconds for record in recent) / len(recent)
    last = evaluations[-3:]
    per_evaluation = sum(record.seconds for record in last) / len(last) if last else 0.0
    step = recent[-1].step
    return max(0, steps - step) * per_step + remaining_evaluations(step, steps, every) * per_evaluation


def _tokens_per_second(recent: Iterable[StepRecord]) -> float | None:
    seconds = sum(record.training_seconds for record in recent)
    return sum(record.tokens.generated for record in recent) / seconds if seconds else None


class Preparation:
    """Reports a preparation of the data that may take many minutes.

    Each call is a heartbeat; every few seconds, a line in the log and in /progress reports how far it is.
    """

    def __init__(self, recorder: Recorder, clock: Callable[[], float] = time.monotonic) -> None:
        self._recorder = recorder
        self._clock = clock
        self._shown = clock()

    def reading(self, rows: int) -> None:
        """Report how many rows of the data set have been read."""
        self._show(f"reading the data set: {amount(rows)} rows")

    def checking(self, answers: int) -> None:
        """Report how many answers of the data set have been checked."""
        self._show(f"checking that answers can be matched: {amount(answers)} done")

    def tokenizing(self, total: int) -> Callable[[int], None]:
        """Returns a function that reports how many problems out of `total` are tokenised."""
        started = self._clock()

        def done(count: int) -> None:
            left = (self._clock() - started) * (total - count) / max(1, count)
            self._show(f"tokenising: {amount(count)} of {amount(total)} problems, about {duration(left)} left")

        return done

    def _show(self, line: str) -> None:
        self._recorder.heartbeat()
        if self._clock() - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = self._clock()
            self._recorder.set_phase("starting", line)
            logger.info("%s", line)
