"""What went wrong in a run, which budget it counts against, and what that budget still allows."""

from seele_operator.api.status import Failures, LastFailure, RunStatus, whole_seconds
from seele_operator.decide.builder import DecisionBuilder, fail
from seele_operator.decide.run_pods import RunPods
from seele_operator.observe.failures import PodFailure
from seele_operator.observe.last_words import dies_again
from seele_operator.observe.pods import ObservedPod, deletion_failure
from seele_operator.plan.gang_schedulers import gang_scheduler_of

BACKOFF_SECONDS = 10.0
"""Delay before the second restart without progress in between, doubled for each further one; the first has no delay."""
MAX_BACKOFF_SECONDS = 300.0


def gang_failure(builder: DecisionBuilder, run_pods: RunPods) -> tuple[str | None, PodFailure] | None:
    """The failure that ends the attempt, and the pod in which it began; None while the trainers are healthy.

    In a gang whose pods cannot be replaced one by one, a failed rollout server ends the attempt too.
    """
    found = [
        (name, failure)
        for name in run_pods.trainers
        if (failure := _trainer_failure(builder, run_pods, name)) is not None
    ]
    if gang_scheduler_of(builder.run).all_or_nothing and builder.status.gang == "created":
        servers = [(name, rollout_failure(name, run_pods.present.get(name))) for name in run_pods.rollouts]
        found += [(name, failure) for name, failure in servers if failure is not None]
    if found:
        # When one trainer fails, the others fail without it: pick the failure that explains most, then the earliest.
        return min(found, key=lambda one: (_explanation_rank(one[1]), one[1].ended_at or builder.now))
    if _stalled(builder):
        limit = builder.run.spec.run_policy.stalled_after_seconds
        message = f"no new step for {limit} s, runPolicy.stalledAfterSeconds; the last one was {builder.status.step}"
        return run_pods.trainers[0], PodFailure("application", "Stalled", None, None, message)
    return None


def _explanation_rank(failure: PodFailure) -> int:
    if failure.reason in ("BadInput", "OOMKilled"):
        return 0
    return 1 if failure.failure_class == "disruption" else 2


def _trainer_failure(builder: DecisionBuilder, run_pods: RunPods, name: str) -> PodFailure | None:
    pod = run_pods.present.get(name)
    if pod is None:
        # While the gang is being created, a missing pod has not been created yet.
        return _deleted(name) if builder.status.gang == "created" else None
    if pod.failure is not None:
        return pod.failure
    return deletion_failure(pod) if pod.terminating else None


def _deleted(name: str) -> PodFailure:
    return PodFailure("disruption", "PodDeleted", None, None, f"{name} was deleted")


def _stalled(builder: DecisionBuilder) -> bool:
    status, limit = builder.status, builder.run.spec.run_policy.stalled_after_seconds
    running = status.attempt_running_time
    # Without an answer from the trainer its progress is unknown: this operator may have just started.
    if limit is None or running is None or builder.seen.progress is None or status.gang != "created":
        return False
    if status.steps is not None and status.step is not None and status.step >= status.steps:
        return False
    return builder.passed(max(running, status.last_step_time or running), limit)


def rollout_failure(name: str, pod: ObservedPod | None) -> PodFailure | None:
    """Why a rollout pod of a complete gang has to be replaced; None while it is healthy."""
    if pod is None:
        return _deleted(name)
    if pod.failure is not None:
        return pod.failure
    if pod.terminating:
        return deletion_failure(pod)
    if pod.phase == "Succeeded":
        return PodFailure("application", "Exited", "rollout", 0, f"{name} ended before the run did")
    return None


def record_failure(builder: DecisionBuilder, pod: str | None, failure: PodFailure) -> bool:
    """Record and count the failure; if that exhausts its budget, fail the run and return False."""
    kind, policy = failure.failure_class, builder.run.spec.run_policy
    repeated = _repeats_itself(builder.status, failure)
    failures = builder.status.failures
    failures = failures.model_copy(update={kind: getattr(failures, kind) + 1})
    record = LastFailure(
        failure_class=kind,
        reason=failure.reason,
        pod=pod,
        container=failure.container,
        exit_code=failure.exit_code,
        message=failure.message,
        error=failure.error,
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
    description = describe(pod, failure)
    if failure.hopeless:
        fail(builder, "BadInput", f"{description}; a restart would not change that")
    elif repeated:
        why = "a rollout server was started again, and died of the same error before the attempt finished a step"
        fail(builder, "RepeatedFailure", f"{why}: {description}")
    elif getattr(failures, kind) > limit:
        reason = "BackoffLimitExceeded" if kind == "application" else "DisruptionLimitExceeded"
        fail(builder, reason, f"{description}; runPolicy.{field_name} is {limit}")
    else:
        return True
    return False


def _repeats_itself(status: RunStatus, failure: PodFailure) -> bool:
    """Whether a server was started after the run's last failure and died of the same lasting error, all before the attempt
    finished a step. A change of the spec, such as a suspension, erases that error.
    """
    last, began, stepped = status.last_failure, status.attempt_start_time, status.last_step_time
    if last is None or failure.started_at is None or failure.started_at < whole_seconds(last.time):
        return False
    idle = not status.step or began is None or stepped is None or stepped < began
    return idle and dies_again(failure.error, last.error)


def backoff(failures: Failures) -> float:
    """Seconds until the next try: 0 after the first failure, then BACKOFF_SECONDS, doubled each time."""
    before = failures.application + failures.disruption - 1
    return 0.0 if before < 1 else min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2 ** min(before - 1, 10))


def describe(pod: str | None, failure: PodFailure) -> str:
    """The failure in one sentence that starts with the pod's name."""
    code = f" (exit code {failure.exit_code})" if failure.exit_code is not None else ""
    where = f"{pod}: " if pod and not failure.message.startswith(pod) else ""
    return f"{where}{failure.reason}{code}: {failure.message}" if failure.message else f"{where}{failure.reason}{code}"
