"""What failures, disruptions and deadlines do to a run, decision by decision."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from seele_operator.decide.decision import DeletePods
from seele_operator.observe.failures import Disruption, PodFailure
from seele_operator.observe.pods import Waiting
from tests.support.run_world import (
    FAILURES,
    START,
    STEPS,
    World,
    answer,
    happen_to_trainer,
    kinds,
    new_world,
    start,
    started,
)


def test_one_failed_trainer_restarts_the_whole_gang_after_it_is_gone() -> None:
    world = started(trainers=2)
    happen_to_trainer(world, "error", index=1)
    decision = world.reconcile()
    assert decision.needs_fresh_read
    assert (decision.status.phase, decision.status.attempt, decision.status.restarts) == ("Restarting", 2, 1)
    assert kinds(decision) == ["DeletePods"]
    assert all(pod.terminating for pod in world.pods.values())
    # One of the old pods is slow to stop: nothing is created next to it.
    slow = world.pods["r-trainer-0"]
    world.kubelet()
    world.pods["r-trainer-0"] = slow
    assert kinds(world.reconcile()) == []
    world.kubelet()
    assert kinds(world.reconcile()) == ["CreatePods"]
    assert {pod.attempt for pod in world.pods.values()} == {2}


@pytest.mark.parametrize(
    ("facts", "grace"),
    [
        ({"r-trainer-1": {"terminating_since": START}}, 1800),  # drained: the trainers save
        ({"r-trainer-1": {"failure": FAILURES["error"], "phase": "Failed"}}, 30),
        ({"r-trainer-1": {"failure": FAILURES["error"]}}, 30),  # the container ended, and the phase lags behind
        ({"r-trainer-1": {"terminating_since": START, "disruption": Disruption("NodeLost", "")}}, 30),
        ({"r-trainer-0": None}, 30),
        ({}, 30),  # stalled
    ],
)
def test_only_a_gang_that_can_save_gets_the_time_to(facts: dict[str, dict[str, Any] | None], grace: int) -> None:
    for policy, expected in (({}, grace), ({"terminationGracePeriodSeconds": 20}, 20)):
        world = started(trainers=2, stalledAfterSeconds=600, **policy)
        world.train(1)
        world.reconcile()
        for name, changes in facts.items():
            if changes is None:
                del world.pods[name]
            else:
                world.change(name, **changes)
        world.now += timedelta(seconds=0 if facts else 601)
        [deletion] = [action for action in world.reconcile().actions if isinstance(action, DeletePods)]
        assert world.status.attempt == 2
        assert deletion.grace_seconds == expected


def test_suspended_trainers_get_the_time_to_save_and_what_a_finished_run_leaves_does_not() -> None:
    for end, grace in (("suspend", 1800), ("finish", 30)):
        world = started(trainers=2)
        if end == "suspend":
            world.edit("runPolicy", suspend=True)
        else:
            world.train(STEPS)
        [deletion] = [action for action in world.reconcile().actions if isinstance(action, DeletePods)]
        assert deletion.grace_seconds == grace


def test_the_last_failure_names_class_pod_code_and_reason() -> None:
    world = started()
    happen_to_trainer(world, "oom")
    world.reconcile()
    failure = world.status.last_failure
    assert failure is not None
    assert (failure.failure_class, failure.pod, failure.exit_code, failure.reason, failure.attempt) == (
        "application",
        "r-trainer-0",
        137,
        "OOMKilled",
        1,
    )


def test_of_several_failed_trainers_the_one_that_explains_the_others_is_named() -> None:
    world = started(trainers=2)
    happen_to_trainer(world, "error", index=0)
    happen_to_trainer(world, "evicted", index=1)
    world.reconcile()
    assert world.status.last_failure is not None
    assert world.status.last_failure.reason == "Evicted"


@pytest.mark.parametrize("trainers", [1, 2])
def test_a_deleted_trainer_is_a_disruption(trainers: int) -> None:
    world = started(trainers=trainers)
    world.change(f"r-trainer-{trainers - 1}", terminating_since=world.now)
    world.reconcile()
    assert world.status.attempt == 2
    assert (world.status.failures.application, world.status.failures.disruption) == (0, 1)


@pytest.mark.parametrize("trainers", [1, 2])
def test_a_trainer_that_is_gone_is_a_disruption(trainers: int) -> None:
    world = started(trainers=trainers)
    del world.pods[f"r-trainer-{trainers - 1}"]
    world.reconcile()
    assert world.status.attempt == 2
    assert world.status.failures.disruption == 1
    assert world.status.last_failure is not None
    assert world.status.last_failure.reason == "PodDeleted"


def test_restarts_wait_longer_each_time_until_there_is_progress() -> None:
    world = started(backoffLimit=9)
    delays = []
    for _ in range(4):
        happen_to_trainer(world, "error")
        world.reconcile()
        world.kubelet()
        before = world.now
        while not world.pods:
            decision = world.reconcile()
            if not world.pods:
                assert decision.recheck_seconds is not None
                world.now += timedelta(seconds=decision.recheck_seconds)
        delays.append((world.now - before).total_seconds())
        for _ in range(2):
            world.kubelet()
            world.reconcile()
    assert delays == [0, 10, 20, 40]
    world.train(12)
    world.reconcile()
    assert world.status.failures.application == 0
    assert world.status.restarts == 4


def test_a_failure_beyond_the_budget_ends_the_run_and_keeps_what_failed() -> None:
    world = started(trainers=2, backoffLimit=0)
    happen_to_trainer(world, "error")
    decision = world.reconcile()
    assert decision.status.phase == "Failed"
    assert answer(world, "Failed") == ("True", "BackoffLimitExceeded")
    assert "runPolicy.backoffLimit is 0" in world.status.message
    deleted = [pod.name for action in decision.actions if isinstance(action, DeletePods) for pod in action.pods]
    assert sorted(deleted) == ["r-rollout-0", "r-rollout-1", "r-trainer-1"]
    world.kubelet()
    world.reconcile()
    assert sorted(world.pods) == ["r-trainer-0"]
    assert world.status.gang == "released"


def test_bad_input_is_not_tried_again() -> None:
    world = started()
    refused = PodFailure("application", "BadInput", "trainer", 2, "spec.x: no")
    world.change("r-trainer-0", phase="Failed", ready=False, failure=refused)
    world.reconcile()
    assert world.status.phase == "Failed"
    assert answer(world, "Failed") == ("True", "BadInput")


def test_disruptions_do_not_use_up_the_budget_of_failures() -> None:
    world = started(backoffLimit=0, disruptionLimit=1)
    world.change("r-trainer-0", phase="Failed", ready=False, failure=FAILURES["evicted"])
    world.reconcile()
    assert world.status.phase == "Restarting"


def test_a_rollout_pod_that_keeps_failing_ends_the_run() -> None:
    world = started(backoffLimit=2)
    crash = PodFailure("application", "Error", "rollout", 1, "cuda")
    for _ in range(40):
        if world.status.terminal:
            break
        if "r-rollout-0" in world.pods:
            world.change("r-rollout-0", phase="Failed", ready=False, failure=crash)
        decision = world.reconcile()
        world.kubelet()
        world.now += timedelta(seconds=decision.recheck_seconds or 1)
    assert world.status.phase == "Failed"
    assert world.status.failures.application == 3


def test_the_schedulers_message_is_reported() -> None:
    world = new_world(1, {"startDeadlineSeconds": 100})
    world.reconcile()
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    world.change("r-trainer-0", waiting=Waiting("Unschedulable", words))
    decision = world.reconcile()
    assert answer(world, "Scheduled") == ("False", "Unschedulable")
    assert decision.status.message == f"r-trainer-0: {words}"
    assert decision.recheck_seconds == 100
    world.now += timedelta(seconds=101)
    world.reconcile()
    assert answer(world, "Failed") == ("True", "StartDeadlineExceeded")
    assert words in world.status.message


def test_an_exceeded_quota_is_reported_and_waited_for() -> None:
    world = new_world(1, {})
    world.quota = True
    world.reconcile()
    decision = world.reconcile()
    assert answer(world, "Scheduled") == ("False", "QuotaExceeded")
    assert kinds(decision) == ["CreatePods"]
    world.quota = False
    world.reconcile()
    assert len(world.pods) == 3


def test_a_run_without_new_steps_counts_as_failed() -> None:
    world = started(stalledAfterSeconds=60)
    world.train(3)
    world.reconcile()
    world.now += timedelta(seconds=59)
    assert world.reconcile().recheck_seconds == 1
    world.now += timedelta(seconds=2)
    world.reconcile()
    assert world.status.last_failure is not None
    assert world.status.last_failure.reason == "Stalled"
    assert world.status.attempt == 2


def test_a_new_operator_does_not_call_a_run_stalled_before_the_trainer_answers() -> None:
    world = started(stalledAfterSeconds=60)
    world.train(3)
    world.reconcile()
    world.now += timedelta(hours=2)
    world.progress = None
    assert world.reconcile().status.attempt == 1


def test_a_clock_that_was_ahead_does_not_hold_a_run_back() -> None:
    world = started()
    for _ in range(2):
        happen_to_trainer(world, "error")
        for _ in range(3):
            world.reconcile()
            world.kubelet()
    assert world.status.not_before is not None
    world.now -= timedelta(days=1)
    world.reconcile()
    assert world.status.gang == "creating"


@pytest.mark.parametrize("limit", ["startDeadlineSeconds", "activeDeadlineSeconds", "stalledAfterSeconds"])
@pytest.mark.parametrize("seconds", [10**10, 10**12, 2**53])
def test_a_limit_beyond_the_calendar_never_passes(limit: str, seconds: int) -> None:
    world = started(**{limit: seconds, "ttlSecondsAfterFinished": seconds})
    for _ in range(2):
        world.train(STEPS // 2)
        world.reconcile()
    assert world.status.phase == "Succeeded"
    assert not world.deleted


def test_failures_count_until_a_run_gets_further_than_before() -> None:
    world = started(backoffLimit=9)
    world.train(25)
    world.reconcile()
    happen_to_trainer(world, "error")
    world.reconcile()
    assert world.progress is not None
    for step in (10, 20):
        # Its newest checkpoint was damaged, so it resumed from an older one.
        world.progress = replace(world.progress, attempt=2, step=step, last_checkpoint_step=step)
        for _ in range(3):
            world.kubelet()
            world.reconcile()
        assert world.status.failures.application == 1


HEAD_DIM = "RuntimeError: Unsupported CPU attention configuration: head_dim={}"


def die_at_start(world: World, error: str, *servers: int) -> None:
    """Let rollout servers die that were started a minute ago, and follow the run until it is complete again."""
    for server in servers:
        failure = PodFailure(
            "application",
            "Error",
            "rollout",
            1,
            f"ended:\n{error}",
            world.now,
            world.now - timedelta(seconds=60),
            error,
        )
        world.change(f"r-rollout-{server}", phase="Failed", ready=False, failure=failure)
    for _ in range(8):
        decision = world.reconcile()
        world.kubelet()
        world.now += timedelta(seconds=min(decision.recheck_seconds or 1, 60))
    world.now += timedelta(seconds=70)


def nothing(world: World) -> None: ...


def finish_a_step(world: World) -> None:
    world.train(1)
    world.reconcile()


def answer_without_a_step(world: World) -> None:
    world.train(0)
    world.reconcile()


def suspend_and_resume(world: World) -> None:
    for suspend in (True, False):
        world.edit("runPolicy", suspend=suspend)
        for _ in range(5):
            world.reconcile()
            world.kubelet()
            world.now += timedelta(seconds=20)


def change_the_spec(world: World) -> None:
    world.edit("runPolicy", ttlSecondsAfterFinished=10)
    world.reconcile()


@pytest.mark.parametrize(
    ("errors", "between", "hopeless"),
    [
        ((HEAD_DIM.format(16),) * 2, nothing, True),
        ((HEAD_DIM.format(16), HEAD_DIM.format(80)), nothing, True),
        ((HEAD_DIM.format(16),) * 2, answer_without_a_step, True),
        ((HEAD_DIM.format(16),) * 2, finish_a_step, False),
        ((HEAD_DIM.format(16),) * 2, suspend_and_resume, False),
        ((HEAD_DIM.format(16),) * 2, change_the_spec, False),
        ((HEAD_DIM.format(16), "ValueError: another one"), nothing, False),
        (("OSError: [Errno 98] Address already in use",) * 2, nothing, False),
        (("torch.OutOfMemoryError: CUDA out of memory.",) * 2, nothing, False),
        (("", ""), nothing, False),
    ],
)
@pytest.mark.parametrize("gang", ["none", "volcano"])
def test_a_server_that_dies_again_of_the_same_error_before_a_step_ends_the_run(
    errors: tuple[str, str], between: Callable[[World], None], hopeless: bool, gang: str
) -> None:
    world = new_world(1, {"backoffLimit": 9})
    world.edit("scheduling", gang=gang)
    start(world)
    die_at_start(world, errors[0], 0)
    between(world)
    assert not world.status.terminal

    die_at_start(world, errors[1], 0)

    assert world.status.failures.application == 2
    assert world.status.terminal == hopeless
    if hopeless:
        assert answer(world, "Failed") == ("True", "RepeatedFailure")
        assert world.status.last_failure is not None
        assert world.status.last_failure.error == errors[1]
        assert "died of the same error before the attempt finished a step: r-rollout-0: Error (exit code 1)" in (
            world.status.message
        )


def test_servers_that_die_together_have_not_been_started_again() -> None:
    world = started(backoffLimit=9)
    die_at_start(world, HEAD_DIM.format(16), 0, 1)
    assert not world.status.terminal
    assert world.status.failures.application == 2

    die_at_start(world, HEAD_DIM.format(16), 0)

    assert answer(world, "Failed") == ("True", "RepeatedFailure")


def test_steps_of_an_earlier_attempt_do_not_excuse_a_server() -> None:
    world = started(backoffLimit=9)
    finish_a_step(world)
    world.now += timedelta(seconds=1)
    happen_to_trainer(world, "error")
    for _ in range(2):
        die_at_start(world, HEAD_DIM.format(16), *((0,) if world.status.attempt == 2 else ()))
        assert world.status.attempt == 2

    die_at_start(world, HEAD_DIM.format(16), 0)

    assert answer(world, "Failed") == ("True", "RepeatedFailure")
