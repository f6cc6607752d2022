"""A status with every field."""

from datetime import UTC, datetime

from seele_operator.api.status import (
    CONDITION_TYPES,
    Checkpoint,
    Condition,
    Failures,
    LastFailure,
    Replacement,
    RunStatus,
)

NOW = datetime(2026, 11, 22, 20, 5, 7, tzinfo=UTC)
PRECISELY = NOW.replace(microsecond=123456)

FULL_STATUS = RunStatus(
    phase="Restarting",
    message="Attempt 3 begins in 40 s",
    observed_generation=4,
    conditions=tuple(
        Condition(
            type=kind,
            status="Unknown",
            reason="Restarting",
            message="0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
            observed_generation=4,
            last_transition_time=NOW,
        )
        for kind in CONDITION_TYPES
    ),
    step=12,
    steps=400,
    reward=-0.25,
    accuracy=0.5,
    hint_rate=1,
    policy_version=13,
    last_checkpoint=Checkpoint(step=10, path="checkpoints/step-10", time=NOW),
    eta_seconds=1234.5,
    stop_seconds=42.5,
    last_step_time=PRECISELY,
    attempt=3,
    gang="stopping",
    attempt_start_time=NOW,
    attempt_running_time=NOW,
    attempt_first_step=10,
    not_before=PRECISELY,
    replacing={"first-rollout-1": Replacement(uid="c7be2f27", not_before=NOW)},
    failures=Failures(application=1, disruption=2),
    restarts=2,
    last_failure=LastFailure(
        failure_class="application",
        reason="OOMKilled",
        pod="first-trainer-0",
        container="trainer",
        exit_code=137,
        message="container trainer was killed\nTraceback",
        attempt=2,
        time=PRECISELY,
    ),
    start_time=NOW,
    running_time=NOW,
    active_since=NOW,
    active_seconds=3600.25,
    failed_reason="BackoffLimitExceeded",
    completion_time=NOW,
    accepted_spec='{"model": {"name": "Qwen/Qwen2.5-1.5B"}}',
)
