"""What a run's status says: conditions, phase and message, from the facts of one pass. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import CONDITION_TYPES, Condition, ConditionType, RunPhase, RunStatus, whole_seconds
from seele_operator.decide.accept import Accepted
from seele_operator.decide.decision import Observed
from seele_operator.decide.run_pods import RunPods
from seele_operator.observe.pods import ObservedPod

PATIENCE_SECONDS = 30
"""How long after its grace period a pod may still be there before the run says that it is stuck."""

_NORMAL_WAITS = ("ContainerCreating", "PodInitializing")


@dataclass(frozen=True)
class _Answer:
    """A condition without its times."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""

    @property
    def telling(self) -> bool:
        """Whether it is a no that somebody should read."""
        return self.status == "False" and bool(self.message)


def report(
    run: SeeleRun,
    status: RunStatus,
    run_pods: RunPods,
    seen: Observed,
    accepted: Accepted,
    generation: int,
    now: datetime,
) -> RunStatus:
    """`status` with what it says about the run brought up to date; the phase of a run that has ended stays."""
    answers = _answers(run, status, run_pods, seen, accepted, now)
    phase = _phase(run, status, run_pods, answers)
    answers["Progressing"] = _progressing(run, status, phase, run_pods, seen, answers, now)
    return status.model_copy(
        update={
            "phase": phase,
            "message": status.message if status.phase == phase == "Failed" else _message(phase, status, answers),
            "observed_generation": generation,
            "conditions": _conditions(status, answers, generation, now),
        }
    )


def report_invalid(status: RunStatus, accepted: Accepted, generation: int, now: datetime) -> RunStatus:
    """The status of a run none of whose specs can be read: it waits for a better one.

    One that has begun was readable by an earlier operator. Nothing else is said of it than that, and above all not that
    it has not begun.
    """
    if status.attempt or status.terminal:
        answers: dict[ConditionType, _Answer] = {
            condition.type: _Answer(condition.status, condition.reason, condition.message)
            for condition in status.conditions
        }
        answers = {kind: answers.get(kind, _Answer("Unknown", "Invalid")) for kind in CONDITION_TYPES}
        answers["Valid"] = _Answer("False", accepted.reason, accepted.message)
        return status.model_copy(
            update={
                "message": status.message if status.terminal else accepted.message,
                "observed_generation": generation,
                "conditions": _conditions(status, answers, generation, now),
            }
        )
    waiting = _Answer("False", "Invalid", "the spec is not valid")
    answers = {
        "Valid": _Answer("False", accepted.reason, accepted.message),
        "Scheduled": waiting,
        "RolloutReady": waiting,
        "TrainerReady": waiting,
        "Progressing": waiting,
        "Complete": _Answer("False", "NotFinished"),
        "Failed": _Answer("False", "NotFinished"),
    }
    return status.model_copy(
        update={
            "phase": "Pending",
            "message": accepted.message,
            "observed_generation": generation,
            "conditions": _conditions(status, answers, generation, now),
        }
    )


def _answers(
    run: SeeleRun, status: RunStatus, run_pods: RunPods, seen: Observed, accepted: Accepted, now: datetime
) -> dict[ConditionType, _Answer]:
    valid = _Answer("True" if accepted.reason == "Accepted" else "False", accepted.reason, accepted.message)
    refusal = seen.refusal if run_pods.missing and status.gang in ("creating", "created") else None
    if refusal is not None and refusal.reason == "Invalid":
        valid = _Answer("False", "PodRefused", refusal.message)
    answers: dict[ConditionType, _Answer] = {
        "Valid": valid,
        "Scheduled": _scheduled(status, run_pods, seen),
        "RolloutReady": _ready("rollout server", run_pods.rollouts, run_pods, status),
        "TrainerReady": _ready("trainer", run_pods.trainers, run_pods, status),
        "Complete": _Answer("True", "Succeeded", "all steps are done")
        if status.phase == "Succeeded"
        else _Answer("False", "Failed" if status.phase == "Failed" else "NotFinished"),
        "Failed": _Answer("True", status.failed_reason or "Failed", status.message)
        if status.phase == "Failed"
        else _Answer("False", "Succeeded" if status.phase == "Succeeded" else "NotFailed"),
    }
    return answers


def _scheduled(status: RunStatus, run_pods: RunPods, seen: Observed) -> _Answer:
    if status.terminal:
        return _Answer("False", "Ended")
    if status.gang == "stopping":
        return _Answer("False", "NoPods")
    waiting = [
        (pod.name, pod.waiting)
        for pod in run_pods.present.values()
        if not pod.scheduled and pod.waiting is not None and pod.waiting.message
    ]
    if seen.refusal is not None and run_pods.missing:
        return _Answer("False", seen.refusal.reason, seen.refusal.message)
    if waiting:
        name, words = waiting[0]
        return _Answer("False", words.reason, f"{name}{_others(waiting)}: {words.message}")
    if run_pods.foreign and run_pods.missing:
        return _Answer("False", "NameTaken", f"pod {run_pods.foreign[0].name} exists and belongs to something else")
    if run_pods.missing:
        return _Answer("False", "Creating")
    if not all(pod.scheduled for pod in run_pods.present.values()):
        return _Answer("False", "Pending")
    return _Answer("True", "AllScheduled")


def _ready(what: str, wanted: tuple[str, ...], run_pods: RunPods, status: RunStatus) -> _Answer:
    if not wanted:
        return _Answer("True", "NotNeeded", "completions are sampled inside the trainer")
    if status.terminal:
        return _Answer("False", "Ended")
    if run_pods.is_ready(wanted):
        return _Answer("True", "Ready", f"{_count(len(wanted), what)} ready")
    pods = [run_pods.present[name] for name in wanted if name in run_pods.present]
    troubled = _troubled(pod for pod in pods if pod.scheduled)
    if troubled is not None and troubled.waiting is not None:
        return _Answer("False", troubled.waiting.reason, f"{troubled.name}: {troubled.waiting.message}")
    if not pods:
        return _Answer("False", "NoPods")
    ready = sum(pod.ready and not pod.terminating for pod in pods)
    reason = "Replacing" if any(name in status.replacing for name in wanted) else "NotReady"
    return _Answer("False", reason, f"{ready} of {_count(len(wanted), what)} ready")


def _troubled(pods: Iterable[ObservedPod]) -> ObservedPod | None:
    """The first pod that waits for something that does not come by itself."""
    return next(
        (pod for pod in pods if pod.waiting is not None and pod.waiting.reason not in _NORMAL_WAITS and not pod.ready),
        None,
    )


def _phase(run: SeeleRun, status: RunStatus, run_pods: RunPods, answers: dict[ConditionType, _Answer]) -> RunPhase:
    if status.terminal:
        return status.phase
    if run.spec.run_policy.suspend:
        return "Suspended"
    again: RunPhase = (
        "Restarting" if status.last_failure and status.last_failure.attempt == status.attempt - 1 else "Pending"
    )
    if status.gang in ("stopping", "creating"):
        return again
    if status.phase == "Running" or (answers["TrainerReady"].status == answers["RolloutReady"].status == "True"):
        return "Running"
    if answers["Scheduled"].status == "True":
        return "Starting"
    # A server that is replaced waits for the scheduler again; the trainers have started all the same.
    return "Starting" if status.phase == "Starting" and run_pods.trainer_at_work else "Pending"


def _progressing(
    run: SeeleRun,
    status: RunStatus,
    phase: RunPhase,
    run_pods: RunPods,
    seen: Observed,
    answers: dict[ConditionType, _Answer],
    now: datetime,
) -> _Answer:
    if status.terminal:
        return _Answer("False", phase)
    if stuck := _stuck(run, run_pods, now):
        return stuck
    if phase == "Suspended":
        left = len(run_pods.everyone)
        return _Answer("False", "Suspended", f"{_count(left, 'pod')} still stopping" if left else "no pod is left")
    if status.gang == "stopping":
        if run_pods.foreign and not run_pods.everyone:
            return _Answer("False", "NameTaken", f"pod {run_pods.foreign[0].name} exists and belongs to something else")
        if run_pods.everyone:
            return _Answer(
                "True", "StoppingPods", f"{_count(len(run_pods.everyone), 'pod')} of the last attempt still stopping"
            )
        if status.not_before is not None and status.not_before > now:
            at = whole_seconds(status.not_before).isoformat()
            return _Answer("True", "BackingOff", f"attempt {status.attempt} starts at {at}")
    if phase != "Running":
        for kind in ("Scheduled", "TrainerReady", "RolloutReady"):
            answer = answers[kind]
            if answer.telling and answer.reason not in ("NotReady", "Replacing"):
                return answer
        return _Answer("True", "Starting")
    return _Answer("True", "Training")


def _stuck(run: SeeleRun, run_pods: RunPods, now: datetime) -> _Answer | None:
    """Pods that are still there long after they should have stopped: usually their node is lost."""
    patience = run.spec.run_policy.termination_grace_period_seconds + PATIENCE_SECONDS
    for pod in run_pods.everyone:
        if pod.terminating_since is not None and (now - pod.terminating_since).total_seconds() > patience:
            where = f" on node {pod.node}" if pod.node else ""
            return _Answer(
                "False",
                "PodStuckTerminating",
                f"{pod.name} should have stopped{where} and is still there, so the next attempt waits: it could still "
                "write. If the node is lost for good, delete its Node object or taint it node.kubernetes.io/out-of-service",
            )
    return None


def _message(phase: RunPhase, status: RunStatus, answers: dict[ConditionType, _Answer]) -> str:
    if phase == "Succeeded":
        return "all steps are done"
    if answers["Valid"].telling:
        return answers["Valid"].message
    if phase == "Running":
        unwell = next((answers[kind] for kind in ("TrainerReady", "RolloutReady") if answers[kind].telling), None)
        return f"attempt {status.attempt} is training" + (f"; {unwell.message}" if unwell else "")
    if answers["Progressing"].message:
        return answers["Progressing"].message
    waiting = [answers[kind].message for kind in ("TrainerReady", "RolloutReady") if answers[kind].telling]
    return "; ".join(waiting)


def _conditions(
    status: RunStatus, answers: dict[ConditionType, _Answer], generation: int, now: datetime
) -> tuple[Condition, ...]:
    conditions = []
    for kind in CONDITION_TYPES:
        answer = answers[kind]
        before = status.condition(kind)
        same = before is not None and before.status == answer.status
        conditions.append(
            Condition(
                type=kind,
                status=answer.status,
                reason=answer.reason,
                message=answer.message,
                observed_generation=generation,
                last_transition_time=before.last_transition_time if same and before else whole_seconds(now),
            )
        )
    return tuple(conditions)


def _others(waiting: Sequence[object]) -> str:
    return f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
