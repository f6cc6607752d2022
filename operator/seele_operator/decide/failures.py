"""What went wrong in a run, what it counts as, and what its budget allows after it."""

from __future__ import annotations

from seele_operator.api.status import Failures, LastFailure
from seele_operator.decide.builder import DecisionBuilder, fail
from seele_operator.decide.run_pods import RunPods
from seele_operator.observe.pods import ObservedPod, PodFailure, deletion_failure
from seele_operator.plan.gangs import gang_of

BACKOFF_SECONDS = 10.0
"""Delay before the second restart without progress in between; the first has none. Each further one waits twice as long."""
LONGEST_BACKOFF_SECONDS = 300.0


def gang_failure(builder: DecisionBuilder, run_pods: RunPods) -> tuple[str | None, PodFailure] | None:
    """The failure that ends the attempt, with the pod it began in; None while the trainers are well.

    A gang that takes no other pods than its first goes as a whole with a rollout server too.
    """
    found = [
        (name, failure)
        for name in run_pods.trainers
        if (failure := _trainer_failure(builder, run_pods, name)) is not None
    ]
    if gang_of(builder.run).fixed and builder.status.gang == "created":
        servers = [(name, rollout_failure(name, run_pods.present.get(name))) for name in run_pods.rollouts]
        found += [(name, failure) for name, failure in servers if failure is not None]
    if found:
        # When one trainer goes, the others fail for want of it: what explains most comes first, then what came first.
        return min(found, key=lambda one: (_explains(one[1]), one[1].ended_at or builder.now))
    if _stalled(builder):
        limit = builder.run.spec.run_policy.stalled_after_seconds
        message = f"no new step for {limit} s, runPolicy.stalledAfterSeconds; the last one was {builder.status.step}"
        return run_pods.trainers[0], PodFailure("application", "Stalled", None, None, message)
    return None


def _explains(failure: PodFailure) -> int:
    if failure.reason in ("BadInput", "OOMKilled"):
        return 0
    return 1 if failure.failure_class == "disruption" else 2


def _trainer_failure(builder: DecisionBuilder, run_pods: RunPods, name: str) -> PodFailure | None:
    pod = run_pods.present.get(name)
    if pod is None:
        # While the gang is being made, a pod that is not there was not made yet.
        return gone(name) if builder.status.gang == "created" else None
    if pod.failure is not None:
        return pod.failure
    return deletion_failure(pod) if pod.terminating else None


def gone(name: str) -> PodFailure:
    """The failure of a pod of which nothing is left to read."""
    return PodFailure("disruption", "PodDeleted", None, None, f"{name} was deleted")


def _stalled(builder: DecisionBuilder) -> bool:
    status, limit = builder.status, builder.run.spec.run_policy.stalled_after_seconds
    running = status.attempt_running_time
    # Without an answer of the trainer nobody knows: this operator may have started just now.
    if limit is None or running is None or builder.seen.progress is None or status.gang != "created":
        return False
    if status.steps is not None and status.step is not None and status.step >= status.steps:
        return False
    return builder.passed(max(running, status.last_step_time or running), limit)


def rollout_failure(name: str, pod: ObservedPod | None) -> PodFailure | None:
    """Why a rollout pod of a complete gang has to be replaced; None while it is well."""
    if pod is None:
        return gone(name)
    if pod.failure is not None:
        return pod.failure
    if pod.terminating:
        return deletion_failure(pod)
    if pod.phase == "Succeeded":
        return PodFailure("application", "Exited", "rollout", 0, f"{name} ended although the run goes on")
    return None


def count(builder: DecisionBuilder, pod: str | None, failure: PodFailure) -> bool:
    """Put the failure on record; whether the run may go on."""
    kind, policy = failure.failure_class, builder.run.spec.run_policy
    failures = builder.status.failures
    failures = failures.model_copy(update={kind: getattr(failures, kind) + 1})
    record = LastFailure(
        failure_class=kind,
        reason=failure.reason,
        pod=pod,
        container=failure.container,
        exit_code=failure.exit_code,
        message=failure.message,
        attempt=builder.status.attempt,
        time=builder.now,
    )
    builder.set(failures=failures, last_failure=record)
    builder.needs_fresh_read = True
    limit, field_name = (
        (policy.backoff_limit, "backoffLimit")
        if kind == "application"
        else (policy.disruption_limit, "disruptionLimit")
    )
    told = words(pod, failure)
    if failure.hopeless:
        fail(builder, "BadInput", f"{told}; a restart would not change that")
    elif getattr(failures, kind) > limit:
        reason = "BackoffLimitExceeded" if kind == "application" else "DisruptionLimitExceeded"
        fail(builder, reason, f"{told}; runPolicy.{field_name} is {limit}")
    else:
        return True
    return False


def backoff(failures: Failures) -> float:
    """Seconds until the next try: none at first, then twice as long each time."""
    before = failures.application + failures.disruption - 1
    return 0.0 if before < 1 else min(LONGEST_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(before - 1, 10))


def words(pod: str | None, failure: PodFailure) -> str:
    """A failure in one sentence, beginning with the pod it happened to."""
    code = f" (exit code {failure.exit_code})" if failure.exit_code is not None else ""
    where = f"{pod}: " if pod and not failure.message.startswith(pod) else ""
    return f"{where}{failure.reason}{code}: {failure.message}" if failure.message else f"{where}{failure.reason}{code}"
