"""What to do about a run: (spec, status, observations, time) to (new status, actions). Pure and level-triggered.

A restart of the gang writes the new attempt's number to the status, deletes the old attempt's pods and, once they are
gone, creates the new ones. Each of these is a state of `status.gang`, so that an operator started in between continues
from there. Every counter is written to the status before it is acted on.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from seele_operator.api.events import RunEvent
from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.status import Checkpoint, Failures, Replacement, RunStatus
from seele_operator.decide.accept import Accepted, EditScope, accept
from seele_operator.decide.builder import (
    GONE_CHECK_SECONDS,
    DecisionBuilder,
    clean_up,
    end_attempt,
    fail,
    finish,
    stop_active_time,
)
from seele_operator.decide.conditions import report, report_invalid
from seele_operator.decide.decision import AdoptPods, CreatePods, Decision, Observed, ReleaseGang, UpdateChildren
from seele_operator.decide.failures import (
    MAX_BACKOFF_SECONDS,
    backoff,
    describe,
    gang_failure,
    record_failure,
    rollout_failure,
)
from seele_operator.decide.run_pods import RunPods
from seele_operator.observe.failures import PodFailure
from seele_operator.observe.trainer import ProgressSeen, parse_progress
from seele_operator.plan import names


def decide(body: Mapping[str, Any], status: RunStatus, seen: Observed, now: datetime) -> Decision:
    """One pass over the run in `body` (as the API server returns it), with `status` read from it."""
    accepted = accept(body, status.accepted_spec, _edit_scope(body, status, seen))
    generation = int(body["metadata"].get("generation", 0))
    before = status.condition("Valid")
    refused = accepted.reason != "Accepted" and (before is None or before.message != accepted.message)
    events = [RunEvent("Warning", accepted.reason, accepted.message)] if refused else []
    if accepted.run is None:
        return Decision(report_invalid(status, accepted, generation, now), events=tuple(events))
    builder = DecisionBuilder(accepted.run, status, seen, now, events=events)
    if status.terminal:
        clean_up(builder)
    else:
        _follow_edit(builder, accepted)
        _advance(builder)
    result = report(builder.run, builder.status, builder.run_pods, seen, accepted, generation, now)
    if result.phase == "Running" and status.phase != "Running":
        result = result.model_copy(update={"running_time": result.running_time or now})
        builder.emit("Normal", "Running", f"attempt {result.attempt} is training")
    recheck_seconds = min(builder.recheck_after, default=None)
    return Decision(result, tuple(builder.actions), tuple(builder.events), recheck_seconds, builder.needs_fresh_read)


def _edit_scope(body: Mapping[str, Any], status: RunStatus, seen: Observed) -> EditScope:
    if status.terminal:
        return "live"
    if status.running_time is None and not status.step:
        # Nothing is trained yet, unless a complete gang is about to start. In an incomplete gang trainers may wait for
        # pods that were refused: whatever prevents those must remain repairable.
        running = status.gang == "created" and any(
            pod.role == "trainer" and pod.phase == "Running" for pod in seen.pods
        )
        return "live" if running else "all"
    running = status.gang != "stopping" and any(
        pod.role == "trainer" and pod.attempt == status.attempt and pod.phase != "Pending" for pod in seen.pods
    )
    # The gang was complete and has vanished: it may have trained.
    lost = status.gang == "created" and not seen.pods
    return "live" if running or lost else "resumable"


def _follow_edit(builder: DecisionBuilder, accepted: Accepted) -> None:
    """Follow the accepted spec; if that needs new pods, in a new attempt that counts against no budget."""
    if not accepted.changed:
        return
    before, last = builder.status.accepted_spec, builder.status.last_failure
    # The change, or what the user did during a suspension, may be the remedy of an error that would else be hopeless.
    forgiven = last.model_copy(update={"error": ""}) if last is not None else None
    builder.set(accepted_spec=accepted.text, last_failure=forgiven)
    if before is None or builder.status.gang == "stopping":
        return
    if accepted.respawn:
        builder.emit("Normal", "Respawned", "the spec was changed before training began: its pods are recreated")
        end_attempt(builder, "the spec was changed")
        return
    run_pods = builder.run_pods
    if builder.status.gang == "created":
        # Servers added now are not lost, nor are those that are still stopping because an earlier edit removed them.
        added = {
            name: Replacement(
                uid=run_pods.present[name].uid if name in run_pods.present else "", not_before=builder.now
            )
            for name in run_pods.rollouts
            if not _was_wanted(before, builder.run, name)
        }
        builder.set(replacing={**builder.status.replacing, **added})
    builder.actions.append(UpdateChildren(builder.run, builder.status.attempt))


def _was_wanted(before: str, run: SeeleRun, rollout: str) -> bool:
    replicas = (json.loads(before).get("rollout") or {}).get("replicas", 1)
    return rollout in {names.pod(run.metadata.name, "rollout", index) for index in range(replicas)}


def _advance(builder: DecisionBuilder) -> None:
    """One pass over a run that has not ended."""
    _update_progress(builder)
    _renumber(builder)
    policy = builder.run.spec.run_policy
    run_pods = builder.run_pods
    if builder.status.gang != "stopping" and _trainer_done(run_pods):
        finish(builder)
        return
    if policy.suspend:
        _suspend(builder)
        return
    if builder.status.active_since is None:
        resumed = builder.status.start_time is not None
        builder.set(active_since=builder.now, start_time=builder.status.start_time or builder.now)
        if resumed:
            builder.emit("Normal", "Resumed", f"resumes as attempt {builder.status.attempt}")
    if policy.active_deadline_seconds is not None and builder.status.active_since is not None:
        left = policy.active_deadline_seconds - builder.status.active_seconds
        if builder.passed(builder.status.active_since, left):
            fail(
                builder,
                "DeadlineExceeded",
                f"active for {policy.active_deadline_seconds} s, runPolicy.activeDeadlineSeconds",
            )
            return
    if builder.status.gang == "stopping":
        _stop_old(builder)
    if builder.status.gang != "stopping":
        _run_gang(builder)


def _update_progress(builder: DecisionBuilder) -> None:
    """Copy the trainer's progress into the status: from /progress, or from its termination message."""
    status, name = builder.status, names.pod(builder.run.metadata.name, "trainer", 0)
    if (
        builder.seen.progress is not None
        and builder.seen.progress.attempt == status.attempt
        and status.gang != "stopping"
    ):
        _take_progress(builder, builder.seen.progress)
    for pod in builder.seen.pods:
        ended = pod.name == name and pod.owner == "run" and pod.termination_message
        # While an attempt is being stopped, the status already has the number of the next one.
        if ended and pod.attempt == status.attempt - (status.gang == "stopping"):
            final = parse_progress(pod.termination_message, pod.attempt)
            if final is not None:
                _take_progress(builder, final)


def _take_progress(builder: DecisionBuilder, progress: ProgressSeen) -> None:
    status = builder.status
    if progress.step != status.step:
        builder.set(last_step_time=builder.now)
    saved = status.last_checkpoint.step if status.last_checkpoint else 0
    if progress.last_checkpoint_step is not None and progress.last_checkpoint_step != saved:
        step = progress.last_checkpoint_step
        builder.set(last_checkpoint=Checkpoint(step=step, path=f"checkpoints/step-{step}", time=builder.now))
        if step > status.furthest_checkpoint_step:
            # Further than any attempt before: earlier failures no longer count.
            builder.set(failures=Failures(), furthest_checkpoint_step=step)
    builder.set(
        step=progress.step,
        steps=progress.steps,
        reward=_either(progress.reward, status.reward),
        accuracy=_either(progress.accuracy, status.accuracy),
        hint_rate=_either(progress.hint_rate, status.hint_rate),
        policy_version=_either(progress.policy_version, status.policy_version),
        eta_seconds=progress.eta_seconds if status.gang != "stopping" else None,
        stop_seconds=_either(progress.stop_seconds, status.stop_seconds),
    )


def _either(new: float | None, old: float | None) -> float | None:
    return old if new is None else new


def _trainer_done(run_pods: RunPods) -> bool:
    """Whether trainer 0 has succeeded: it drives the run and ends last, after the final model is written."""
    first = run_pods.present.get(run_pods.trainers[0])
    return first is not None and first.phase == "Succeeded"


def _suspend(builder: DecisionBuilder) -> None:
    stop_active_time(builder)
    if builder.status.phase != "Suspended":
        builder.emit("Normal", "Suspended", "the pods are stopped; the run's folder stays")
    if builder.status.gang != "stopping":
        end_attempt(builder, "the run is suspended")
        return
    own = builder.run_pods.own
    builder.delete(own, "the run is suspended")
    if own:
        builder.recheck_after.append(GONE_CHECK_SECONDS)
    else:
        builder.actions.append(ReleaseGang(builder.run))


def _renumber(builder: DecisionBuilder) -> None:
    """After the status was lost, number the next attempt above all existing ones: the highest attempt alone may write."""
    highest = max((pod.attempt for pod in builder.run_pods.own if pod.owner == "run"), default=0)
    if builder.status.gang == "stopping" and highest >= max(1, builder.status.attempt):
        builder.set(attempt=highest + 1)


def _stop_old(builder: DecisionBuilder) -> None:
    """Wait until all pods of earlier attempts are gone, then start the next attempt."""
    run_pods = builder.run_pods
    if run_pods.own or run_pods.foreign:
        builder.delete(run_pods.own, f"attempt {builder.status.attempt} starts when the pods before it are gone")
        builder.recheck_after.append(GONE_CHECK_SECONDS)
        return
    if builder.status.not_before is not None and not builder.due(builder.status.not_before, 2 * MAX_BACKOFF_SECONDS):
        return
    attempt = max(1, builder.status.attempt)
    builder.set(attempt=attempt, gang="creating", attempt_start_time=builder.now, not_before=None)
    saved = builder.status.last_checkpoint
    where = f" from the checkpoint of step {saved.step}" if saved else ""
    builder.emit("Normal", "Started", f"attempt {attempt} starts{where}")


def _run_gang(builder: DecisionBuilder) -> None:
    run_pods = builder.run_pods
    failure = gang_failure(builder, run_pods)
    if failure is not None:
        _restart(builder, *failure)
        return
    if builder.status.attempt_running_time is None:
        if run_pods.all_running:
            builder.set(attempt_running_time=builder.now)
        elif _start_deadline_passed(builder):
            return
    if run_pods.orphans:
        builder.actions.append(AdoptPods(run_pods.orphans))
    builder.delete(run_pods.old, "belongs to an attempt that has ended")
    if builder.status.gang == "creating":
        if not run_pods.missing:
            builder.set(gang="created")
        elif run_pods.old or run_pods.foreign:
            builder.recheck_after.append(GONE_CHECK_SECONDS)
        else:
            builder.actions.append(CreatePods(builder.run, builder.status.attempt, run_pods.missing))
    if builder.status.gang == "created":
        _replace_rollouts(builder, run_pods)


def _start_deadline_passed(builder: DecisionBuilder) -> bool:
    limit, since = builder.run.spec.run_policy.start_deadline_seconds, builder.status.attempt_start_time
    if limit is None or since is None or not builder.passed(since, limit):
        return False
    run_pods = builder.run_pods
    refusal = builder.seen.refusal
    waiting = (
        pod.waiting.message for pod in run_pods.present.values() if pod.waiting is not None and pod.waiting.message
    )
    why = refusal.message if refusal is not None and run_pods.missing else next(waiting, "")
    message = f"not all pods were running within {limit} s, runPolicy.startDeadlineSeconds"
    fail(builder, "StartDeadlineExceeded", f"{message}: {why}" if why else message)
    return True


def _restart(builder: DecisionBuilder, pod: str | None, failure: PodFailure) -> None:
    """Count the failure and end the attempt, or the run if its budget is exhausted."""
    if record_failure(builder, pod, failure):
        builder.set(restarts=builder.status.restarts + 1)
        delay = backoff(builder.status.failures)
        after = f" in {delay:g} s" if delay else ""
        builder.emit("Warning", "Restarting", f"{describe(pod, failure)}; all pods are restarted{after}")
        # Trainers that make no steps hang, and would not save.
        end_attempt(builder, f"{pod or 'a trainer'} failed", delay, save=failure.reason != "Stalled")


def _replace_rollouts(builder: DecisionBuilder, run_pods: RunPods) -> None:
    """Replace failed rollout pods one by one, and delete those that are no longer needed."""
    builder.delete(run_pods.surplus, "the run needs fewer rollout servers")
    due = []
    for name in run_pods.rollouts:
        pod, known = run_pods.present.get(name), builder.status.replacing.get(name)
        failure = rollout_failure(name, pod)
        if failure is None:
            if known is not None:
                builder.set(replacing={other: one for other, one in builder.status.replacing.items() if other != name})
            continue
        if known is None or (pod is not None and pod.uid != known.uid):
            if not record_failure(builder, name, failure):
                return
            delay = backoff(builder.status.failures)
            known = Replacement(uid=pod.uid if pod else "", not_before=builder.now + timedelta(seconds=delay))
            builder.set(replacing={**builder.status.replacing, name: known})
            builder.emit("Warning", "RolloutReplaced", f"{describe(name, failure)}; it is replaced")
        if pod is not None:
            builder.delete((pod,), "failed and is replaced")
            builder.recheck_after.append(GONE_CHECK_SECONDS)
        elif builder.due(known.not_before, 2 * MAX_BACKOFF_SECONDS):
            due.append(name)
    unwanted = set(builder.status.replacing) - set(run_pods.rollouts)
    if unwanted:
        builder.set(replacing={name: one for name, one in builder.status.replacing.items() if name not in unwanted})
    if any(pod.name in due for pod in run_pods.foreign):
        builder.recheck_after.append(GONE_CHECK_SECONDS)
    elif due:
        builder.actions.append(CreatePods(builder.run, builder.status.attempt, tuple(due)))
