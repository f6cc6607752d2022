"""The failures that a run expects. Their messages say what happened and what to do, so they are shown without a trace."""

from __future__ import annotations

from seele_trainer.data.problem import BadDataError
from seele_trainer.hints.controller import HintStateError
from seele_trainer.learner.learner import TrainingDiverged
from seele_trainer.rollout.protocol import RolloutUnavailable, WeightSyncError
from seele_trainer.rollout.vllm_client import RequestRefused
from seele_trainer.run_folder.attempt import AttemptFileError, Superseded
from seele_trainer.run_folder.checkpoint import CheckpointError
from seele_trainer.run_folder.journal import JournalError
from seele_trainer.telemetry.server import TelemetryServerError
from seele_trainer.telemetry.trackers import TrackerError
from seele_trainer.verify.process import VerifierError
from seele_trainer.weights.export import WeightExportError
from seele_trainer.weights.prepare import BadModelError, ModelUnreachable

EXPECTED_FAILURES = (
    OSError,  # a full or lost disk: its own words name the file
    AttemptFileError,
    BadDataError,
    BadModelError,
    CheckpointError,
    HintStateError,
    JournalError,
    RequestRefused,
    RolloutUnavailable,
    Superseded,
    TelemetryServerError,
    TrackerError,
    TrainingDiverged,
    VerifierError,
    WeightExportError,
    WeightSyncError,
)

FAILED, BAD_INPUT = 1, 2


def exit_code(failure: Exception) -> int:
    """Exit code of a trainer: 2 where another attempt would be refused the same input, 1 where it may do better."""
    refused = isinstance(failure, BadDataError | BadModelError | HintStateError)
    # A disk or a hub that does not answer now may answer then.
    unreachable = isinstance(failure, ModelUnreachable) or isinstance(failure.__cause__, OSError)
    return BAD_INPUT if refused and not unreachable else FAILED
