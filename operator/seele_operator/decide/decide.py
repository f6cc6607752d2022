"""What to do about a run: (spec, status, what is seen, time) to (new status, actions). Pure and level-triggered.

Restart of the gang: the new attempt's number is written to the status; the old attempt's pods are deleted; when they are
really gone, the new ones are created. Each of these is a state of `status.gang`, so an operator that dies in between goes
on where it was. Every counter is in the status before it is acted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import Checkpoint, Failures, Replacement, RunStatus
from seele_operator.decide.accept import Accepted, Freedom, accept
from seele_operator.decide.conditions import report, report_invalid
from seele_operator.decide.decision import (
    Action,
    AdoptPods,
    CreatePods,
    Decision,
    DeletePods,
    DeleteRun,
    Notice,
    Observed,
    Refusal,
    ReleaseGang,
    UpdateChildren,
)
from seele_operator.decide.draft import GONE_CHECK_SECONDS, Draft, clean_up, end_attempt, fail, finish
from seele_operator.decide.failures import LONGEST_BACKOFF_SECONDS, backoff, count, gang_failure, rollout_failure, words
from seele_operator.decide.run_pods import Crew
from seele_operator.observe.failures import PodFailure
from seele_operator.observe.trainer import ProgressSeen, parse_progress
from seele_operator.plan import names

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


def decide(body: Mapping[str, Any], status: RunStatus, seen: Observed, now: datetime) -> Decision:
    """One pass over the run in `body` (as the API server gives it), with `status` read from it."""
    accepted = accept(body, status.accepted_spec, _freedom(body, status, seen))
    generation = int(body["metadata"].get("generation", 0))
    before = status.condition("Valid")
    refused = accepted.reason != "Accepted" and (before is None or before.message != accepted.message)
    news = (Notice("Warning", accepted.reason, accepted.message),) if refused else ()
    if accepted.run is None:
        return Decision(report_invalid(status, accepted, generation, now), notices=news)
    draft = Draft(accepted.run, status, seen, now, notices=list(news))
    if status.terminal:
        clean_up(draft)
    else:
        _take_over(draft, accepted)
        _advance(draft)
    crew = draft.crew
    told = report(draft.run, draft.status, crew, seen, accepted, generation, now)
    if told.phase == "Running" and status.phase != "Running":
        told = told.model_copy(update={"running_time": told.running_time or now})
        draft.tell("Normal", "Running", f"attempt {told.attempt} is training")
    return Decision(told, tuple(draft.actions), tuple(draft.notices), draft.look_again, draft.consequential)


def _freedom(body: Mapping[str, Any], status: RunStatus, seen: Observed) -> Freedom:
    if status.terminal:
        return "live"
    if status.running_time is None and not status.step:
        # Nothing was trained yet, unless a complete gang is just about to. One that lacks pods, refused perhaps, may have
        # trainers that wait: what keeps the others away must be open to repair.
        at_work = status.gang == "created" and any(
            pod.role == "trainer" and pod.phase == "Running" for pod in seen.pods
        )
        return "live" if at_work else "all"
    at_work = status.gang != "stopping" and any(
        pod.role == "trainer" and pod.attempt == status.attempt and pod.phase != "Pending" for pod in seen.pods
    )
    # Of a gang that was complete and is not seen, nobody knows what it did.
    lost = status.gang == "created" and not seen.pods
    return "live" if at_work or lost else "resumable"


def _take_over(draft: Draft, accepted: Accepted) -> None:
    """Follow the accepted spec; where that needs other pods, as an attempt of its own that no budget pays for."""
    if not accepted.changed:
        return
    before = draft.status.accepted_spec
    draft.set(accepted_spec=accepted.text)
    if before is None or draft.status.gang == "stopping":
        return
    if accepted.respawn:
        draft.tell("Normal", "Respawned", "the spec was changed before training began: its pods are made anew")
        end_attempt(draft, "the spec was changed")
        return
    crew = draft.crew
    if draft.status.gang == "created":
        # Servers that are added now are no lost ones, nor are those that still stop because they were taken away before.
        added = {
            name: Replacement(uid=crew.present[name].uid if name in crew.present else "", not_before=draft.now)
            for name in crew.rollouts
            if not _was_wanted(before, draft.run, name)
        }
        draft.set(replacing={**draft.status.replacing, **added})
    draft.actions.append(UpdateChildren(draft.run, draft.status.attempt))


def _was_wanted(before: str, run: SeeleRun, rollout: str) -> bool:
    replicas = (json.loads(before).get("rollout") or {}).get("replicas", 1)
    return rollout in {names.pod(run.metadata.name, "rollout", index) for index in range(replicas)}


def _advance(draft: Draft) -> None:
    """One pass over a run that has not ended."""
    _learn(draft)
    _number_anew(draft)
    policy = draft.run.spec.run_policy
    crew = draft.crew
    if draft.status.gang != "stopping" and _trainer_done(crew):
        finish(draft)
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
            fail(
                draft,
                "DeadlineExceeded",
                f"active for {policy.active_deadline_seconds} s, runPolicy.activeDeadlineSeconds",
            )
            return
    if draft.status.gang == "stopping":
        _stop_old(draft)
    if draft.status.gang != "stopping":
        _run_gang(draft)


def _learn(draft: Draft) -> None:
    """Take over what the trainer said last: on /progress, or with its last words when it ended."""
    status, name = draft.status, names.pod(draft.run.metadata.name, "trainer", 0)
    if draft.seen.progress is not None and draft.seen.progress.attempt == status.attempt and status.gang != "stopping":
        _take_progress(draft, draft.seen.progress)
    for pod in draft.seen.pods:
        ended = pod.name == name and pod.owner == "run" and pod.last_words
        # An attempt that is being stopped is the one before that of the status.
        if ended and pod.attempt == status.attempt - (status.gang == "stopping"):
            said = parse_progress(pod.last_words, pod.attempt)
            if said is not None:
                _take_progress(draft, said)


def _take_progress(draft: Draft, progress: ProgressSeen) -> None:
    status = draft.status
    if progress.step != status.step:
        draft.set(last_step_time=draft.now)
    saved = status.last_checkpoint.step if status.last_checkpoint else 0
    if progress.last_checkpoint_step is not None and progress.last_checkpoint_step != saved:
        step = progress.last_checkpoint_step
        draft.set(last_checkpoint=Checkpoint(step=step, path=f"checkpoints/step-{step}"))
        if step > status.furthest_checkpoint_step:
            # It got further than any attempt before it: what failed until then is forgiven.
            draft.set(failures=Failures(), furthest_checkpoint_step=step)
    draft.set(
        step=progress.step,
        steps=progress.steps,
        reward=_either(progress.reward, status.reward),
        accuracy=_either(progress.accuracy, status.accuracy),
        hint_rate=_either(progress.hint_rate, status.hint_rate),
        policy_version=_either(progress.policy_version, status.policy_version),
        eta_seconds=progress.eta_seconds if status.gang != "stopping" else None,
    )


def _either(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _trainer_done(crew: Crew) -> bool:
    """Trainer 0 drives the run and ends last: once it has, the final model is written."""
    first = crew.present.get(crew.trainers[0])
    return first is not None and first.phase == "Succeeded"


def _suspend(draft: Draft) -> None:
    status = draft.status
    if status.active_since is not None:
        active = status.active_seconds + (draft.now - status.active_since).total_seconds()
        draft.set(active_seconds=active, active_since=None)
    if status.phase != "Suspended":
        draft.tell("Normal", "Suspended", "the pods are stopped; the run's folder stays")
    if status.gang != "stopping":
        end_attempt(draft, "the run is suspended")
        return
    everyone = draft.crew.everyone
    draft.delete(everyone, "the run is suspended")
    if everyone:
        draft.looks.append(GONE_CHECK_SECONDS)
    else:
        draft.actions.append(ReleaseGang(draft.run))


def _number_anew(draft: Draft) -> None:
    """After a status was lost: no two attempts may have the same number, for trainers tell by it who may write."""
    highest = max((pod.attempt for pod in draft.crew.everyone if pod.owner == "run"), default=0)
    if draft.status.gang == "stopping" and highest >= max(1, draft.status.attempt):
        draft.set(attempt=highest + 1)


def _stop_old(draft: Draft) -> None:
    """Wait until nothing is left of earlier attempts, then begin the next."""
    crew = draft.crew
    if crew.everyone or crew.strangers:
        draft.delete(crew.everyone, f"attempt {draft.status.attempt} begins when the pods before it are gone")
        draft.looks.append(GONE_CHECK_SECONDS)
        return
    if draft.status.not_before is not None and not draft.due(draft.status.not_before, 2 * LONGEST_BACKOFF_SECONDS):
        return
    attempt = max(1, draft.status.attempt)
    draft.set(attempt=attempt, gang="creating", attempt_start_time=draft.now, not_before=None)
    saved = draft.status.last_checkpoint
    where = f" from the checkpoint of step {saved.step}" if saved else ""
    draft.tell("Normal", "Started", f"attempt {attempt} starts{where}")


def _run_gang(draft: Draft) -> None:
    crew = draft.crew
    failure = gang_failure(draft, crew)
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


def _start_deadline_passed(draft: Draft) -> bool:
    limit, since = draft.run.spec.run_policy.start_deadline_seconds, draft.status.attempt_start_time
    if limit is None or since is None or not draft.passed(since, limit):
        return False
    crew = draft.crew
    refusal = draft.seen.refusal
    waits = [pod.waiting.message for pod in crew.present.values() if pod.waiting is not None and pod.waiting.message]
    why = refusal.message if refusal is not None and crew.missing else next(iter(waits), "")
    message = f"not all pods were running within {limit} s, runPolicy.startDeadlineSeconds"
    fail(draft, "StartDeadlineExceeded", f"{message}: {why}" if why else message)
    return True


def _restart(draft: Draft, pod: str | None, failure: PodFailure) -> None:
    """Count the failure and end the attempt; or the run, where its budget is spent."""
    if count(draft, pod, failure):
        draft.set(restarts=draft.status.restarts + 1)
        delay = backoff(draft.status.failures)
        waits = f" in {delay:g} s" if delay else ""
        draft.tell("Warning", "Restarting", f"{words(pod, failure)}; all pods are restarted{waits}")
        end_attempt(draft, f"{pod or 'a trainer'} failed", delay)


def _tend_rollouts(draft: Draft, crew: Crew) -> None:
    """Replace rollout pods one by one, and take away those that are wanted no longer."""
    draft.delete(crew.surplus, "the run wants fewer rollout servers")
    due = []
    for name in crew.rollouts:
        pod, known = crew.present.get(name), draft.status.replacing.get(name)
        failure = rollout_failure(name, pod)
        if failure is None:
            if known is not None:
                draft.set(replacing={other: one for other, one in draft.status.replacing.items() if other != name})
            continue
        if known is None or (pod is not None and pod.uid != known.uid):
            if not count(draft, name, failure):
                return
            delay = backoff(draft.status.failures)
            known = Replacement(uid=pod.uid if pod else "", not_before=draft.now + timedelta(seconds=delay))
            draft.set(replacing={**draft.status.replacing, name: known})
            draft.tell("Warning", "RolloutReplaced", f"{words(name, failure)}; it is replaced")
        if pod is not None:
            draft.delete((pod,), "failed, and is replaced")
            draft.looks.append(GONE_CHECK_SECONDS)
        elif draft.due(known.not_before, 2 * LONGEST_BACKOFF_SECONDS):
            due.append(name)
    unwanted = set(draft.status.replacing) - set(crew.rollouts)
    if unwanted:
        draft.set(replacing={name: one for name, one in draft.status.replacing.items() if name not in unwanted})
    if any(pod.name in due for pod in crew.strangers):
        draft.looks.append(GONE_CHECK_SECONDS)
    elif due:
        draft.actions.append(CreatePods(draft.run, draft.status.attempt, tuple(due)))
