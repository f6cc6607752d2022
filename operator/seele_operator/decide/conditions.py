"""The conditions, phase and message in a run's status, from the facts of one pass. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import CONDITION_TYPES, Condition, ConditionType, RunPhase, RunStatus, whole_seconds
from seele_operator.decide.accept import Accepted
from seele_operator.decide.decision import Observed
from seele_operator.decide.run_pods import RunPods
from seele_operator.plan.probes import HUNG_SECONDS

PATIENCE_SECONDS = 30
"""How long a pod may outlive its grace period before it is reported as stuck."""


@dataclass(frozen=True)
class _Answer:
    """A condition without its times."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""

    @property
    def explains(self) -> bool:
        """Whether it is False with a message for the user."""
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
    """`status` with phase, message and conditions brought up to date; the phase of a run that has ended stays."""
    answers = _answers(status, run_pods, seen, accepted)
    phase = _phase(run, status, run_pods, answers)
    answers["Progressing"] = _progressing(run, status, phase, run_pods, answers, now)
    message = status.message if status.phase == phase == "Failed" else _message(phase, status, answers)
    return _updated(status, phase, message, answers, generation, now)


def report_invalid(status: RunStatus, accepted: Accepted, generation: int, now: datetime) -> RunStatus:
    """The status of a run without a readable spec: it waits for a valid one.

    If it has started, an earlier operator could read its spec. Its other conditions then stay as they are, so that it
    does not seem never to have started.
    """
    answers: dict[ConditionType, _Answer]
    if status.attempt or status.terminal:
        answers = dict.fromkeys(CONDITION_TYPES, _Answer("Unknown", "Invalid"))
        answers |= {known.type: _Answer(known.status, known.reason, known.message) for known in status.conditions}
        phase, message = status.phase, status.message if status.terminal else accepted.message
    else:
        answers = dict.fromkeys(CONDITION_TYPES, _Answer("False", "Invalid", "the spec is not valid"))
        answers["Complete"] = answers["Failed"] = _Answer("False", "NotFinished")
        phase, message = "Pending", accepted.message
    answers["Valid"] = _Answer("False", accepted.reason, accepted.message)
    return _updated(status, phase, message, answers, generation, now)


def _answers(status: RunStatus, run_pods: RunPods, seen: Observed, accepted: Accepted) -> dict[ConditionType, _Answer]:
    valid = _Answer("True" if accepted.reason == "Accepted" else "False", accepted.reason, accepted.message)
    refusal = seen.refusal if run_pods.missing and status.gang in ("creating", "created") else None
    if refusal is not None and refusal.reason == "Invalid":
        valid = _Answer("False", "PodRefused", refusal.message)
    return {
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
        name, first = waiting[0]
        others = f" and {len(waiting) - 1} more" if len(waiting) > 1 else ""
        return _Answer("False", first.reason, f"{name}{others}: {first.message}")
    if run_pods.foreign and run_pods.missing:
        return _name_taken(run_pods)
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
    for pod in pods:
        if pod.scheduled and pod.waiting is not None and not pod.waiting.normal and not pod.ready:
            return _Answer("False", pod.waiting.reason, f"{pod.name}: {pod.waiting.message}")
    if not pods:
        return _Answer("False", "NoPods")
    ready = sum(pod.ready and not pod.terminating for pod in pods)
    reason = "Replacing" if any(name in status.replacing for name in wanted) else "NotReady"
    return _Answer("False", reason, f"{ready} of {_count(len(wanted), what)} ready")


def _name_taken(run_pods: RunPods) -> _Answer:
    return _Answer("False", "NameTaken", f"pod {run_pods.foreign[0].name} exists and belongs to something else")


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
    # A server that is being replaced waits for the scheduler again, although the trainers have started.
    return "Starting" if status.phase == "Starting" and run_pods.trainer_at_work else "Pending"


def _progressing(
    run: SeeleRun,
    status: RunStatus,
    phase: RunPhase,
    run_pods: RunPods,
    answers: dict[ConditionType, _Answer],
    now: datetime,
) -> _Answer:
    if status.terminal:
        return _Answer("False", phase)
    if stuck := _stuck(run, run_pods, now):
        return stuck
    if phase == "Suspended":
        if run_pods.own:
            return _Answer("False", "StoppingPods", f"{_count(len(run_pods.own), 'pod')} still stopping")
        return _Answer("False", "Suspended", "no pod is left")
    if status.gang == "stopping":
        if run_pods.foreign and not run_pods.own:
            return _name_taken(run_pods)
        if run_pods.own:
            return _Answer(
                "True", "StoppingPods", f"{_count(len(run_pods.own), 'pod')} of the last attempt still stopping"
            )
        if status.not_before is not None and status.not_before > now:
            at = whole_seconds(status.not_before).isoformat()
            return _Answer("True", "BackingOff", f"attempt {status.attempt} starts at {at}")
    if phase != "Running":
        for kind in ("Scheduled", "TrainerReady", "RolloutReady"):
            answer = answers[kind]
            if answer.explains and answer.reason not in ("NotReady", "Replacing"):
                return answer
        return _Answer("True", "Starting")
    return _Answer("True", "Training")


def _stuck(run: SeeleRun, run_pods: RunPods, now: datetime) -> _Answer | None:
    """The first pod that exists long after it should have stopped: usually its node is lost."""
    grace = run.spec.run_policy.termination_grace_period_seconds
    for pod in run_pods.own:
        patience = PATIENCE_SECONDS + (min(grace, HUNG_SECONDS) if pod.node_lost else grace)
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
    if answers["Valid"].explains:
        return answers["Valid"].message
    unready = [answers[kind].message for kind in ("TrainerReady", "RolloutReady") if answers[kind].explains]
    if phase == "Running":
        return "; ".join([f"attempt {status.attempt} is training", *unready[:1]])
    return answers["Progressing"].message or "; ".join(unready)


def _updated(
    status: RunStatus,
    phase: RunPhase,
    message: str,
    answers: dict[ConditionType, _Answer],
    generation: int,
    now: datetime,
) -> RunStatus:
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
    return status.model_copy(
        update={
            "phase": phase,
            "message": message,
            "observed_generation": generation,
            "conditions": tuple(conditions),
        }
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
