"""What to do about a run: (spec, status, what is seen, time) to (new status, actions). Pure and level-triggered.

Restart of the gang: the new attempt's number is written to the status; the old attempt's pods are deleted; when they are
really gone, the new ones are created. Each of these is a state of `status.gang`, so an operator that dies in between goes
on where it was. Every counter is in the status before it is acted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from seele_operator import names
from seele_operator.accept import Accepted, Freedom, accept
from seele_operator.crew import Crew, sort_pods
from seele_operator.decision import (
    Action,
    AdoptPods,
    CreatePods,
    Decision,
    DeletePods,
    DeleteRun,
    Notice,
    Observed,
    ProgressSeen,
    Refusal,
    ReleaseGang,
    UpdateChildren,
)
from seele_operator.observe import ObservedPod, PodFailure, deletion_failure
from seele_operator.report import report, report_invalid
from seele_operator.spec import SeeleRun
from seele_operator.status import Checkpoint, Failures, LastFailure, Replacement, RunStatus

__all__ = [
    "Action",
    "AdoptPods",
    "CreatePods",
    "Decision",
    "DeletePods",
    "DeleteRun",
    "Notice",
    "Observed",
    "ProgressSeen",
    "Refusal",
    "ReleaseGang",
    "UpdateChildren",
    "decide",
]

BACKOFF_SECONDS = 10.0
"""Delay before the second restart without progress in between; the first has none. Each further one waits twice as long."""
LONGEST_BACKOFF_SECONDS = 300.0
GONE_CHECK_SECONDS = 5.0
"""How often to look whether old pods are gone, should the news of it be lost."""


def decide(body: Mapping[str, Any], status: RunStatus, seen: Observed, now: datetime) -> Decision:
    """One pass over the run in `body` (as the API server gives it), with `status` read from it."""
    accepted = accept(body, status.accepted_spec, _freedom(body, status, seen))
    generation = int(body["metadata"].get("generation", 0))
    if accepted.run is None:
        refused = report_invalid(status, accepted, generation, now)
        news = refused.message != status.message
        return Decision(refused, notices=(Notice("Warning", "Invalid", accepted.message),) if news else ())
    draft = _Draft(accepted.run, status, seen, now)
    if status.terminal:
        _clean_up(draft)
    else:
        _take_over(draft, accepted)
        _advance(draft)
    crew = draft.crew
    told = report(draft.run, draft.status, crew, seen, accepted, generation, now)
    if told.phase == "Running" and status.phase != "Running":
        told = told.model_copy(update={"running_time": told.running_time or now})
        draft.tell("Normal", "Running", f"attempt {told.attempt} is training")
    return Decision(told, tuple(draft.actions), tuple(draft.notices), draft.look_again, draft.consequential)


@dataclass
class _Draft:
    """A decision while it is made."""

    run: SeeleRun
    status: RunStatus
    seen: Observed
    now: datetime
    actions: list[Action] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    consequential: bool = False

    @property
    def crew(self) -> Crew:
        return sort_pods(self.run, self.status.attempt, self.seen.pods)

    @property
    def look_again(self) -> float | None:
        return min(self.looks, default=None)

    def set(self, **fields: Any) -> None:
        self.status = self.status.model_copy(update=fields)

    def tell(self, kind: str, reason: str, message: str) -> None:
        self.notices.append(Notice("Warning" if kind == "Warning" else "Normal", reason, message))

    def delete(self, pods: tuple[ObservedPod, ...], why: str) -> None:
        """Delete those of the pods whose deletion was not asked for yet."""
        going = tuple(pod for pod in pods if not pod.terminating)
        if going:
            self.actions.append(DeletePods(going, why))

    def passed(self, since: datetime, limit: float) -> bool:
        """Whether `limit` seconds have passed since then; if not, come back when they have."""
        left = (since + timedelta(seconds=limit) - self.now).total_seconds()
        if left > 0:
            self.looks.append(left)
        return left <= 0


def _freedom(body: Mapping[str, Any], status: RunStatus, seen: Observed) -> Freedom:
    if status.terminal:
        return "live"
    if status.running_time is None and status.step is None:
        # Nothing was trained yet, unless a trainer is just about to.
        at_work = any(pod.role == "trainer" and pod.phase == "Running" for pod in seen.pods)
        return "live" if at_work else "all"
    at_work = status.gang != "stopping" and any(
        pod.role == "trainer" and pod.attempt == status.attempt and pod.phase != "Pending" for pod in seen.pods
    )
    # Of a gang that was complete and is not seen, nobody knows what it did.
    lost = status.gang == "created" and not seen.pods
    return "live" if at_work or lost else "resumable"


def _take_over(draft: _Draft, accepted: Accepted) -> None:
    """Follow the accepted spec; where that needs other pods, as an attempt of its own that no budget pays for."""
    if not accepted.changed:
        return
    before = draft.status.accepted_spec
    draft.set(accepted_spec=accepted.text)
    if before is None or draft.status.gang == "stopping":
        return
    if accepted.respawn:
        draft.tell("Normal", "Respawned", "the spec was changed before training began: its pods are made anew")
        _end_attempt(draft, "the spec was changed")
        return
    crew = draft.crew
    if draft.status.gang == "created":
        # Servers that are added now are no lost ones.
        added = {
            name: Replacement(not_before=draft.now)
            for name in crew.rollouts
            if name not in crew.present and not _was_wanted(before, draft.run, name)
        }
        draft.set(replacing={**draft.status.replacing, **added})
    draft.actions.append(UpdateChildren(draft.run, draft.status.attempt))


def _was_wanted(before: str, run: SeeleRun, rollout: str) -> bool:
    replicas = (json.loads(before).get("rollout") or {}).get("replicas", 1)
    return rollout in {names.pod(run.metadata.name, "rollout", index) for index in range(replicas)}


def _advance(draft: _Draft) -> None:
    """One pass over a run that has not ended."""
    _learn(draft)
    policy = draft.run.spec.run_policy
    crew = draft.crew
    if draft.status.gang != "stopping" and _trainer_done(crew):
        _finish(draft)
        return
    if policy.suspend:
        _suspend(draft)
        return
    if draft.status.active_since is None:
        resumed = draft.status.start_time is not None
        draft.set(active_since=draft.now, start_time=draft.status.start_time or draft.now)
        if resumed:
            draft.tell("Normal", "Resumed", f"goes on as attempt {draft.status.attempt}")
    if policy.active_deadline_seconds is not None and draft.status.active_since is not None:
        left = policy.active_deadline_seconds - draft.status.active_seconds
        if draft.passed(draft.status.active_since, left):
            _fail(
                draft,
                "DeadlineExceeded",
                f"active for {policy.active_deadline_seconds} s, runPolicy.activeDeadlineSeconds",
            )
            return
    if draft.status.gang == "stopping":
        _stop_old(draft)
    if draft.status.gang != "stopping":
        _run_gang(draft)


def _learn(draft: _Draft) -> None:
    """Take over what the trainer of the present attempt said last."""
    progress, status = draft.seen.progress, draft.status
    if progress is None or progress.attempt != status.attempt or status.gang == "stopping":
        return
    if progress.step != status.step:
        draft.set(last_step_time=draft.now)
    saved = status.last_checkpoint.step if status.last_checkpoint else 0
    if progress.last_checkpoint_step is not None and progress.last_checkpoint_step != saved:
        step = progress.last_checkpoint_step
        draft.set(last_checkpoint=Checkpoint(step=step, path=f"checkpoints/step-{step}"))
        if step > saved:
            # It got further than any attempt before it: what failed until then is forgiven.
            draft.set(failures=Failures())
    draft.set(
        step=progress.step,
        steps=progress.steps,
        reward=_either(progress.reward, status.reward),
        accuracy=_either(progress.accuracy, status.accuracy),
        hint_rate=_either(progress.hint_rate, status.hint_rate),
        policy_version=_either(progress.policy_version, status.policy_version),
        eta_seconds=progress.eta_seconds,
    )


def _either(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _trainer_done(crew: Crew) -> bool:
    """Trainer 0 drives the run and ends last: once it has, the final model is written."""
    first = crew.present.get(crew.trainers[0])
    return first is not None and first.phase == "Succeeded"


def _suspend(draft: _Draft) -> None:
    status = draft.status
    if status.active_since is not None:
        active = status.active_seconds + (draft.now - status.active_since).total_seconds()
        draft.set(active_seconds=active, active_since=None)
    if status.phase != "Suspended":
        draft.tell("Normal", "Suspended", "the pods are stopped; the run's folder stays")
    if status.gang != "stopping":
        _end_attempt(draft, "the run is suspended")
        return
    everyone = draft.crew.everyone
    draft.delete(everyone, "the run is suspended")
    if everyone:
        draft.looks.append(GONE_CHECK_SECONDS)
    else:
        draft.actions.append(ReleaseGang(draft.run))


def _end_attempt(draft: _Draft, why: str, delay: float = 0.0) -> None:
    """Stop all pods; those of the next attempt are made when these are gone and `delay` seconds have passed."""
    everyone = draft.crew.everyone
    draft.set(
        attempt=draft.status.attempt + 1,
        gang="stopping",
        not_before=draft.now + timedelta(seconds=delay) if delay else None,
        attempt_start_time=None,
        attempt_running_time=None,
        replacing={},
        eta_seconds=None,
    )
    draft.delete(everyone, why)
    draft.looks.append(GONE_CHECK_SECONDS if everyone else delay)
    draft.consequential = True


def _stop_old(draft: _Draft) -> None:
    """Wait until nothing is left of earlier attempts, then begin the next."""
    crew = draft.crew
    if crew.everyone or crew.strangers:
        draft.delete(crew.everyone, f"attempt {draft.status.attempt} begins when the pods before it are gone")
        draft.looks.append(GONE_CHECK_SECONDS)
        return
    if draft.status.not_before is not None and not draft.passed(draft.status.not_before, 0.0):
        return
    attempt = max(1, draft.status.attempt)
    draft.set(attempt=attempt, gang="creating", attempt_start_time=draft.now, not_before=None)
    saved = draft.status.last_checkpoint
    where = f" from the checkpoint of step {saved.step}" if saved else ""
    draft.tell("Normal", "Started", f"attempt {attempt} starts{where}")


def _run_gang(draft: _Draft) -> None:
    crew = draft.crew
    failure = _gang_failure(draft, crew)
    if failure is not None:
        _restart(draft, *failure)
        return
    if draft.status.attempt_running_time is None:
        if crew.all_running:
            draft.set(attempt_running_time=draft.now)
        elif _start_deadline_passed(draft):
            return
    if crew.orphans:
        draft.actions.append(AdoptPods(crew.orphans))
    draft.delete(crew.old, "belongs to an attempt that has ended")
    if draft.status.gang == "creating":
        if not crew.missing:
            draft.set(gang="created")
        elif crew.old or crew.strangers:
            draft.looks.append(GONE_CHECK_SECONDS)
        else:
            draft.actions.append(CreatePods(draft.run, draft.status.attempt, crew.missing))
    if draft.status.gang == "created":
        _tend_rollouts(draft, crew)


def _start_deadline_passed(draft: _Draft) -> bool:
    limit, since = draft.run.spec.run_policy.start_deadline_seconds, draft.status.attempt_start_time
    if limit is None or since is None or not draft.passed(since, limit):
        return False
    crew = draft.crew
    refusal = draft.seen.refusal
    words = [pod.waiting.message for pod in crew.present.values() if pod.waiting is not None and pod.waiting.message]
    why = refusal.message if refusal is not None and crew.missing else next(iter(words), "")
    message = f"not all pods were running within {limit} s, runPolicy.startDeadlineSeconds"
    _fail(draft, "StartDeadlineExceeded", f"{message}: {why}" if why else message)
    return True


def _gang_failure(draft: _Draft, crew: Crew) -> tuple[str | None, PodFailure] | None:
    """The failure that ends the attempt, with the pod it began in; None while the trainers are well."""
    found = [(name, failure) for name in crew.trainers if (failure := _trainer_failure(draft, crew, name)) is not None]
    if found:
        # When one trainer goes, the others fail for want of it: what explains most comes first.
        return min(
            found, key=lambda one: _EXPLAINS.get(one[1].reason, 1 if one[1].failure_class == "disruption" else 2)
        )
    if _stalled(draft):
        limit = draft.run.spec.run_policy.stalled_after_seconds
        message = f"no new step for {limit} s, runPolicy.stalledAfterSeconds; the last one was {draft.status.step}"
        return crew.trainers[0], PodFailure("application", "Stalled", None, None, message)
    return None


_EXPLAINS = {"BadInput": 0, "OOMKilled": 0}


def _trainer_failure(draft: _Draft, crew: Crew, name: str) -> PodFailure | None:
    pod = crew.present.get(name)
    if pod is None:
        # While the gang is being made, a pod that is not there was not made yet.
        return _gone(name) if draft.status.gang == "created" else None
    if pod.failure is not None:
        return pod.failure
    return deletion_failure(pod) if pod.terminating else None


def _gone(name: str) -> PodFailure:
    return PodFailure("disruption", "PodDeleted", None, None, f"{name} was deleted")


def _stalled(draft: _Draft) -> bool:
    status, limit = draft.status, draft.run.spec.run_policy.stalled_after_seconds
    running = status.attempt_running_time
    # Without an answer of the trainer nobody knows: this operator may have started just now.
    if limit is None or running is None or draft.seen.progress is None or status.gang != "created":
        return False
    if status.steps is not None and status.step is not None and status.step >= status.steps:
        return False
    return draft.passed(max(running, status.last_step_time or running), limit)


def _restart(draft: _Draft, pod: str | None, failure: PodFailure) -> None:
    """Count the failure and end the attempt; or the run, where its budget is spent."""
    if _count(draft, pod, failure):
        draft.set(restarts=draft.status.restarts + 1)
        delay = _backoff(draft.status.failures)
        waits = f" in {delay:g} s" if delay else ""
        draft.tell("Warning", "Restarting", f"{_words(pod, failure)}; all pods are restarted{waits}")
        _end_attempt(draft, f"{pod or 'a trainer'} failed", delay)


def _tend_rollouts(draft: _Draft, crew: Crew) -> None:
    """Replace rollout pods one by one, and take away those that are wanted no longer."""
    draft.delete(crew.surplus, "the run wants fewer rollout servers")
    due = []
    for name in crew.rollouts:
        pod, known = crew.present.get(name), draft.status.replacing.get(name)
        failure = _rollout_failure(name, pod)
        if failure is None:
            if known is not None:
                draft.set(replacing={other: one for other, one in draft.status.replacing.items() if other != name})
            continue
        if known is None or (pod is not None and pod.uid != known.uid):
            if not _count(draft, name, failure):
                return
            delay = _backoff(draft.status.failures)
            known = Replacement(uid=pod.uid if pod else "", not_before=draft.now + timedelta(seconds=delay))
            draft.set(replacing={**draft.status.replacing, name: known})
            draft.tell("Warning", "RolloutReplaced", f"{_words(name, failure)}; it is replaced")
        if pod is not None:
            draft.delete((pod,), "failed, and is replaced")
        elif draft.passed(known.not_before, 0.0):
            due.append(name)
    unwanted = set(draft.status.replacing) - set(crew.rollouts)
    if unwanted:
        draft.set(replacing={name: one for name, one in draft.status.replacing.items() if name not in unwanted})
    if due and not any(pod.name in due for pod in crew.strangers):
        draft.actions.append(CreatePods(draft.run, draft.status.attempt, tuple(due)))


def _rollout_failure(name: str, pod: ObservedPod | None) -> PodFailure | None:
    if pod is None:
        return _gone(name)
    if pod.failure is not None:
        return pod.failure
    if pod.terminating:
        return deletion_failure(pod)
    if pod.phase == "Succeeded":
        return PodFailure("application", "Exited", "rollout", 0, f"{name} ended although the run goes on")
    return None


def _count(draft: _Draft, pod: str | None, failure: PodFailure) -> bool:
    """Put the failure on record; whether the run may go on."""
    kind, policy = failure.failure_class, draft.run.spec.run_policy
    failures = draft.status.failures
    failures = failures.model_copy(update={kind: getattr(failures, kind) + 1})
    record = LastFailure(
        failure_class=kind,
        reason=failure.reason,
        pod=pod,
        container=failure.container,
        exit_code=failure.exit_code,
        message=failure.message,
        attempt=draft.status.attempt,
        time=draft.now,
    )
    draft.set(failures=failures, last_failure=record)
    draft.consequential = True
    limit, field_name = (
        (policy.backoff_limit, "backoffLimit")
        if kind == "application"
        else (policy.disruption_limit, "disruptionLimit")
    )
    words = _words(pod, failure)
    if failure.hopeless:
        _fail(draft, "BadInput", f"{words}; a restart would not change that")
    elif getattr(failures, kind) > limit:
        reason = "BackoffLimitExceeded" if kind == "application" else "DisruptionLimitExceeded"
        _fail(draft, reason, f"{words}; runPolicy.{field_name} is {limit}")
    else:
        return True
    return False


def _backoff(failures: Failures) -> float:
    """Seconds until the next try: none at first, then twice as long each time."""
    before = failures.application + failures.disruption - 1
    return 0.0 if before < 1 else min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(before - 1, 10))


def _words(pod: str | None, failure: PodFailure) -> str:
    code = f" (exit code {failure.exit_code})" if failure.exit_code is not None else ""
    where = f"{pod}: " if pod and not failure.message.startswith(pod) else ""
    return f"{where}{failure.reason}{code}: {failure.message}" if failure.message else f"{where}{failure.reason}{code}"


def _finish(draft: _Draft) -> None:
    steps = draft.status.steps or draft.run.spec.training.steps
    draft.set(phase="Succeeded", step=steps, steps=steps)
    _end(draft)
    draft.tell("Normal", "Succeeded", f"{steps} steps are done")


def _fail(draft: _Draft, reason: str, message: str) -> None:
    draft.set(phase="Failed", failed_reason=reason, message=message)
    _end(draft)
    draft.tell("Warning", "Failed", f"{reason}: {message}")


def _end(draft: _Draft) -> None:
    status = draft.status
    if status.active_since is not None:
        active = status.active_seconds + (draft.now - status.active_since).total_seconds()
        draft.set(active_seconds=active, active_since=None)
    draft.set(completion_time=draft.now, eta_seconds=None, replacing={}, not_before=None)
    draft.consequential = True
    _clean_up(draft)


def _clean_up(draft: _Draft) -> None:
    """What is left to do for a run that has ended."""
    policy, ended = draft.run.spec.run_policy, draft.status.completion_time
    everyone = draft.crew.everyone
    going = {
        "Running": tuple(pod for pod in everyone if pod.phase not in ("Succeeded", "Failed")),
        "All": everyone,
        "None": (),
    }[policy.clean_pod_policy]
    draft.delete(going, "the run has ended")
    if draft.status.gang != "released":
        draft.actions.append(ReleaseGang(draft.run))
        if not going:
            draft.set(gang="released")
    ttl = policy.ttl_seconds_after_finished
    if ttl is not None and ended is not None and draft.passed(ended, ttl):
        draft.actions.append(DeleteRun())
