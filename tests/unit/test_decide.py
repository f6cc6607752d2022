"""The life of a run, decision by decision."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from run_world import FAILURES, STEPS, World, new_world
from seele_operator.decide import AdoptPods, CreatePods, Decision, DeletePods, DeleteRun, ReleaseGang, UpdateChildren
from seele_operator.decision import ProgressSeen
from seele_operator.observe import PodFailure, Waiting


def started(trainers: int = 1, **policy: Any) -> World:
    """A run whose pods all run and train."""
    world = new_world(trainers, policy)
    world.reconcile()
    for _ in range(3):
        world.kubelet()
        world.reconcile()
    assert world.status.phase == "Running"
    return world


def kinds(decision: Decision) -> list[str]:
    return [type(action).__name__ for action in decision.actions]


def answer(world: World, kind: str) -> tuple[str, str]:
    condition = world.status.condition(kind)  # type: ignore[arg-type]
    assert condition is not None
    return condition.status, condition.reason


def test_a_new_run_goes_through_pending_and_starting_to_running() -> None:
    world = new_world(2, {})
    phases = [world.reconcile().status.phase]
    for _ in range(4):
        world.kubelet()
        phases.append(world.reconcile().status.phase)
    assert phases == ["Pending", "Starting", "Starting", "Running", "Running"]
    assert sorted(world.pods) == ["r-rollout-0", "r-rollout-1", "r-trainer-0", "r-trainer-1"]
    assert answer(world, "Progressing") == ("True", "Training")
    assert world.status.running_time is not None


def test_progress_is_told() -> None:
    world = started()
    world.train(15)
    world.reconcile()
    status = world.status
    assert (status.step, status.steps) == (15, STEPS)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.path == "checkpoints/step-10"
    assert status.last_step_time == world.now


def test_progress_of_an_earlier_attempt_is_not_told() -> None:
    world = started()
    world.train(15)
    stale = world.progress
    world.reconcile()
    happen_to_trainer(world, "error")
    world.reconcile()
    world.kubelet()
    world.reconcile()
    world.progress = stale
    before = world.status.last_step_time
    world.now += timedelta(seconds=60)
    world.reconcile()
    assert world.status.last_step_time == before


def happen_to_trainer(world: World, kind: str, index: int = 0) -> None:
    world.change(f"r-trainer-{index}", phase="Failed", ready=False, failure=FAILURES[kind])


def test_one_failed_trainer_restarts_the_whole_gang_after_it_is_gone() -> None:
    world = started(trainers=2)
    happen_to_trainer(world, "error", index=1)
    decision = world.reconcile()
    assert decision.consequential
    assert (decision.status.phase, decision.status.attempt, decision.status.restarts) == ("Restarting", 2, 1)
    assert kinds(decision) == ["DeletePods"]
    assert all(pod.terminating for pod in world.pods.values())
    # One of the old pods is slow to stop: nothing is made beside it.
    slow = world.pods["r-trainer-0"]
    world.kubelet()
    world.pods["r-trainer-0"] = slow
    assert kinds(world.reconcile()) == []
    world.kubelet()
    assert kinds(world.reconcile()) == ["CreatePods"]
    assert {pod.attempt for pod in world.pods.values()} == {2}


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
                assert decision.look_again is not None
                world.now += timedelta(seconds=decision.look_again)
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


def test_success_ends_the_run_and_stays() -> None:
    world = started(trainers=2)
    world.train(STEPS)
    decision = world.reconcile()
    assert decision.status.phase == "Succeeded"
    assert decision.status.step == STEPS
    assert answer(world, "Complete") == ("True", "Succeeded")
    world.kubelet()
    world.reconcile()
    assert sorted(world.pods) == ["r-trainer-0", "r-trainer-1"], "finished pods keep their logs"
    world.pods.clear()
    world.progress = None
    assert kinds(world.reconcile()) == []
    assert world.status.phase == "Succeeded"


@pytest.mark.parametrize(("policy", "left"), [("All", 0), ("None", 3), ("Running", 1)])
def test_clean_pod_policy(policy: str, left: int) -> None:
    world = started(cleanPodPolicy=policy)
    world.train(STEPS)
    world.reconcile()
    world.kubelet()
    world.reconcile()
    assert len(world.pods) == left


def test_a_finished_run_is_deleted_after_its_time() -> None:
    world = started(ttlSecondsAfterFinished=60)
    world.train(STEPS)
    decision = world.reconcile()
    assert decision.look_again == 60
    world.now += timedelta(seconds=61)
    assert DeleteRun() in world.reconcile().actions


def test_a_lost_rollout_pod_is_replaced_alone() -> None:
    world = started()
    crash = PodFailure("application", "Error", "rollout", 1, "cuda")
    world.change("r-rollout-1", phase="Failed", ready=False, failure=crash)
    decision = world.reconcile()
    assert kinds(decision) == ["DeletePods"]
    assert decision.status.attempt == 1
    assert decision.status.phase == "Running"
    assert decision.status.failures.application == 1
    assert answer(world, "RolloutReady") == ("False", "Replacing")
    world.kubelet()
    decision = world.reconcile()
    assert [action.names for action in decision.actions if isinstance(action, CreatePods)] == [("r-rollout-1",)]
    for _ in range(3):
        world.kubelet()
        world.reconcile()
    assert world.status.replacing == {}
    assert answer(world, "RolloutReady")[0] == "True"
    assert world.status.failures.application == 1, "counted once"


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
        world.now += timedelta(seconds=decision.look_again or 1)
    assert world.status.phase == "Failed"
    assert world.status.failures.application == 3


def test_rollout_servers_can_be_added_and_taken_away_while_training() -> None:
    world = started()
    world.spec["rollout"]["replicas"] = 3
    world.generation += 1
    decision = world.reconcile()
    assert [type(action) for action in decision.actions] == [UpdateChildren, CreatePods]
    assert "r-rollout-2" in world.pods
    assert world.status.failures.disruption == 0
    for _ in range(3):
        world.kubelet()
        world.reconcile()
    world.spec["rollout"]["replicas"] = 1
    world.generation += 1
    world.reconcile()
    world.kubelet()
    world.reconcile()
    assert sorted(world.pods) == ["r-rollout-0", "r-trainer-0"]
    assert world.status.attempt == 1
    assert world.status.failures.disruption == 0


def test_an_edit_that_training_does_not_allow_is_refused_and_the_run_goes_on() -> None:
    world = started()
    world.train(3)
    world.reconcile()
    world.spec["training"]["learningRate"] = 2e-6
    world.spec["runPolicy"]["backoffLimit"] = 7
    world.generation += 1
    decision = world.reconcile()
    assert answer(world, "Valid") == ("False", "ChangeRefused")
    assert [notice.reason for notice in decision.notices] == ["ChangeRefused"]
    assert world.reconcile().notices == ()
    assert "spec.training.learningRate: was 1e-06 and is 2e-06" in world.status.message
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]
    assert '"backoffLimit":7' in (world.status.accepted_spec or ""), "what may change changes"
    assert '"learningRate":1e-06' in (world.status.accepted_spec or "")
    world.spec["training"]["learningRate"] = 1e-6
    world.generation += 1
    world.reconcile()
    assert answer(world, "Valid")[0] == "True"


def test_an_invalid_edit_does_not_disturb_the_run() -> None:
    world = started()
    world.spec["training"]["learningRat"] = 1.0
    world.generation += 1
    assert world.reconcile().status.phase == "Running"
    assert answer(world, "Valid") == ("False", "Invalid")
    assert "did you mean" in world.status.message


def test_an_invalid_run_waits_for_a_better_spec() -> None:
    world = new_world(1, {})
    del world.spec["model"]
    decision = world.reconcile()
    assert (decision.status.phase, decision.actions) == ("Pending", ())
    assert answer(world, "Valid") == ("False", "Invalid")
    assert [notice.reason for notice in decision.notices] == ["Invalid"]
    assert world.reconcile().notices == ()
    world.spec["model"] = {"name": "m"}
    world.generation += 1
    assert kinds(world.reconcile()) == ["CreatePods"]


def test_an_image_that_cannot_be_pulled_is_told_and_can_be_repaired() -> None:
    world = new_world(1, {})
    world.reconcile()
    world.kubelet()
    words = Waiting("ImagePullBackOff", 'Back-off pulling image "nothing:1"')
    world.change("r-trainer-0", waiting=words)
    world.reconcile()
    assert answer(world, "TrainerReady") == ("False", "ImagePullBackOff")
    assert answer(world, "Progressing") == ("False", "ImagePullBackOff")
    assert "nothing:1" in world.status.message
    world.spec["trainer"]["image"] = "seele:0.1.1"
    world.generation += 1
    decision = world.reconcile()
    assert answer(world, "Valid")[0] == "True"
    assert decision.status.attempt == 2
    assert decision.status.failures.application == 0
    world.kubelet()
    world.reconcile()
    assert len(world.pods) == 3


def test_what_keeps_servers_from_being_made_can_be_repaired_while_trainers_wait_for_them() -> None:
    world = new_world(1, {})
    world.reconcile()
    for name in ("r-rollout-0", "r-rollout-1"):
        del world.pods[name]  # refused
    world.quota = True
    for _ in range(3):
        world.kubelet()
    world.progress = ProgressSeen(attempt=1, step=0, steps=STEPS, phase="starting")
    assert world.reconcile().status.gang == "creating"
    assert world.pods["r-trainer-0"].ready
    world.quota = False
    world.spec["rollout"]["image"] = "vllm:better"
    world.generation += 1
    decision = world.reconcile()
    assert answer(world, "Valid")[0] == "True"
    assert (decision.status.attempt, decision.status.failures.application) == (2, 0)


def test_the_schedulers_words_are_told() -> None:
    world = new_world(1, {"startDeadlineSeconds": 100})
    world.reconcile()
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    world.change("r-trainer-0", waiting=Waiting("Unschedulable", words))
    decision = world.reconcile()
    assert answer(world, "Scheduled") == ("False", "Unschedulable")
    assert decision.status.message == f"r-trainer-0: {words}"
    assert decision.look_again == 100
    world.now += timedelta(seconds=101)
    world.reconcile()
    assert answer(world, "Failed") == ("True", "StartDeadlineExceeded")
    assert words in world.status.message


def test_a_quota_is_told_and_survived() -> None:
    world = new_world(1, {})
    world.quota = True
    world.reconcile()
    decision = world.reconcile()
    assert answer(world, "Scheduled") == ("False", "QuotaExceeded")
    assert kinds(decision) == ["CreatePods"]
    world.quota = False
    world.reconcile()
    assert len(world.pods) == 3


@pytest.mark.parametrize("steps_before", range(5))
def test_suspend_and_resume_in_each_phase(steps_before: int) -> None:
    world = new_world(1, {})
    for _ in range(steps_before):
        world.reconcile()
        world.kubelet()
    attempts = world.status.attempt
    world.spec["runPolicy"]["suspend"] = True
    world.generation += 1
    assert world.reconcile().status.phase == "Suspended"
    world.kubelet()
    decision = world.reconcile()
    assert not world.pods
    assert ReleaseGang in [type(action) for action in decision.actions]
    world.now += timedelta(hours=5)
    world.reconcile()
    world.spec["runPolicy"]["suspend"] = False
    world.generation += 1
    for _ in range(4):
        world.reconcile()
        world.kubelet()
    assert world.reconcile().status.phase == "Running"
    assert world.status.attempt == attempts + 1
    assert world.status.restarts == 0


def test_a_pause_does_not_count_as_active() -> None:
    world = started(activeDeadlineSeconds=100)
    world.now += timedelta(seconds=50)
    world.spec["runPolicy"]["suspend"] = True
    world.reconcile()
    world.kubelet()
    world.now += timedelta(hours=1)
    world.reconcile()
    world.spec["runPolicy"]["suspend"] = False
    decision = world.reconcile()
    assert decision.look_again == 50
    world.now += timedelta(seconds=51)
    world.reconcile()
    assert answer(world, "Failed") == ("True", "DeadlineExceeded")


def test_a_run_without_new_steps_counts_as_failed() -> None:
    world = started(stalledAfterSeconds=60)
    world.train(3)
    world.reconcile()
    world.now += timedelta(seconds=59)
    assert world.reconcile().look_again == 1
    world.now += timedelta(seconds=2)
    world.reconcile()
    assert world.status.last_failure is not None
    assert world.status.last_failure.reason == "Stalled"
    assert world.status.attempt == 2


def test_an_operator_that_was_away_does_not_call_a_run_stalled_before_it_has_asked() -> None:
    world = started(stalledAfterSeconds=60)
    world.train(3)
    world.reconcile()
    world.now += timedelta(hours=2)
    world.progress = None
    assert world.reconcile().status.attempt == 1


def test_a_pod_that_does_not_stop_is_told_and_nothing_is_made_beside_it() -> None:
    world = started()
    world.change("r-trainer-0", terminating_since=world.now)
    world.reconcile()
    world.now += timedelta(seconds=90)
    decision = world.reconcile()
    assert answer(world, "Progressing") == ("False", "PodStuckTerminating")
    assert "on node n" in decision.status.message
    assert kinds(decision) == []


def test_orphans_are_adopted() -> None:
    world = started()
    world.change("r-trainer-0", owner="nobody")
    decision = world.reconcile()
    assert kinds(decision) == ["AdoptPods"]
    assert isinstance(decision.actions[0], AdoptPods)
    assert world.status.attempt == 1


def test_pods_of_somebody_else_are_left_alone() -> None:
    world = started()
    foreign = world.pods["r-trainer-0"]
    world = new_world(1, {})
    world.pods["r-trainer-0"] = foreign
    world.change("r-trainer-0", owner="other")
    decision = world.reconcile()
    assert kinds(decision) == []
    assert answer(world, "Progressing") == ("False", "NameTaken")


def test_a_pod_of_an_older_attempt_is_removed_whenever_it_shows_up() -> None:
    world = started()
    ghost = world.pods["r-rollout-1"]
    world.change("r-rollout-1", attempt=0)
    decision = world.reconcile()
    deleted = [pod.uid for action in decision.actions if isinstance(action, DeletePods) for pod in action.pods]
    assert deleted == [ghost.uid]


def test_a_success_that_comes_with_a_suspension_counts() -> None:
    world = started()
    world.train(STEPS)
    world.spec["runPolicy"]["suspend"] = True
    assert world.reconcile().status.phase == "Succeeded"


def test_the_last_words_of_a_trainer_are_the_final_progress() -> None:
    world = started()
    world.train(STEPS - 1)
    world.reconcile()
    words = json.dumps({"step": STEPS, "steps": STEPS, "accuracy": 0.9, "policyVersion": 41, "lastCheckpointStep": 40})
    world.change("r-trainer-0", phase="Succeeded", last_words=words)
    status = world.reconcile().status
    assert (status.phase, status.accuracy, status.policy_version) == ("Succeeded", 0.9, 41)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.step == 40


def test_a_suspended_trainer_says_what_it_saved() -> None:
    world = started()
    world.train(13)
    world.reconcile()
    world.spec["runPolicy"]["suspend"] = True
    world.reconcile()
    words = json.dumps({"attempt": 1, "step": 14, "steps": STEPS, "lastCheckpointStep": 14})
    world.change("r-trainer-0", phase="Failed", last_words=words)
    status = world.reconcile().status
    assert status.last_checkpoint is not None
    assert (status.phase, status.step, status.last_checkpoint.step) == ("Suspended", 14, 14)


def unreadable(world: World) -> None:
    """What was valid once is no longer, as after an upgrade of the operator that renamed a field."""
    world.spec["hints"] = {"nameOfAnOldRelease": 1}
    stored = json.loads(world.stored["acceptedSpec"])
    world.stored["acceptedSpec"] = json.dumps(
        {**stored, "hints": world.spec["hints"]}, separators=(",", ":"), sort_keys=True
    )


def test_a_run_whose_spec_the_operator_no_longer_reads_goes_on_and_is_told() -> None:
    world = started(2)
    unreadable(world)
    decision = world.reconcile()
    assert (decision.status.phase, decision.actions) == ("Running", ())
    assert answer(world, "Valid") == ("False", "Invalid")
    assert answer(world, "TrainerReady")[0] == "True"
    assert [notice.reason for notice in decision.notices] == ["Invalid"]
    assert world.reconcile().notices == ()
    del world.spec["hints"]
    world.generation += 1
    decision = world.reconcile()
    assert (decision.status.phase, decision.status.attempt) == ("Running", 1)
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]


def test_a_run_that_has_ended_stays_so_though_the_operator_no_longer_reads_its_spec() -> None:
    world = started()
    world.train(STEPS)
    world.reconcile()
    unreadable(world)
    assert [notice.reason for notice in world.reconcile().notices] == ["Invalid"]
    assert world.status.phase == "Succeeded"
    assert answer(world, "Complete")[0] == "True"
    assert world.reconcile().notices == ()


@pytest.mark.parametrize("policy", ["Running", "All"])
def test_a_sidecar_does_not_keep_a_finished_run_on_its_node(policy: str) -> None:
    world = started(cleanPodPolicy=policy)
    world.change("r-trainer-0", phase="Succeeded", lingers=True)
    world.reconcile()
    assert world.status.phase == "Succeeded"
    assert world.pods["r-trainer-0"].terminating


def test_a_rollout_server_that_is_wanted_again_while_it_stops_is_no_lost_one() -> None:
    world = started()
    for replicas in (1, 2):
        world.spec["rollout"]["replicas"] = replicas
        world.generation += 1
        world.reconcile()
    assert world.pods["r-rollout-1"].terminating
    for _ in range(4):
        world.kubelet()
        world.reconcile()
    assert world.pods["r-rollout-1"].ready
    assert world.status.failures.disruption == 0
    assert world.status.last_failure is None


def test_the_gang_is_released_again_where_that_failed() -> None:
    world = new_world(1, {})
    world.spec["scheduling"] = {"gang": "volcano"}
    for _ in range(3):
        world.reconcile()
        world.kubelet()
    world.change("r-rollout-0", phase="Failed")
    world.change("r-rollout-1", phase="Failed")
    world.train(STEPS)
    for _ in range(3):
        assert "ReleaseGang" in kinds(world.reconcile()), "whether the last one came through, no status tells"


@pytest.mark.parametrize("suspended", [False, True])
def test_a_status_that_was_lost_does_not_give_a_number_to_two_attempts(suspended: bool) -> None:
    world = started()
    world.change("r-trainer-0", attempt=3)
    world.stored = {}
    world.spec["runPolicy"]["suspend"] = suspended
    world.reconcile()
    world.kubelet()
    world.spec["runPolicy"]["suspend"] = False
    for _ in range(5):
        world.reconcile()
        world.kubelet()
    assert {pod.attempt for pod in world.pods.values()} == {4}


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


def test_a_trainer_of_an_earlier_run_of_the_name_is_waited_for_though_this_run_has_no_pod_like_it() -> None:
    world = started(2)
    ghost = world.pods["r-trainer-1"]
    world = new_world(1, {})
    world.pods["r-trainer-1"] = replace(ghost, owner="other", terminating_since=world.now)
    decision = world.reconcile()
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]
    assert decision.look_again
    del world.pods["r-trainer-1"]
    assert kinds(world.reconcile()) == ["CreatePods"]


def test_a_server_that_does_not_stop_is_told_in_time() -> None:
    world = started()
    world.change("r-rollout-0", terminating_since=world.now)
    assert world.reconcile().look_again
    assert world.reconcile().look_again
    world.now += timedelta(seconds=90)
    world.reconcile()
    assert answer(world, "Progressing") == ("False", "PodStuckTerminating")


@pytest.mark.parametrize("limit", ["startDeadlineSeconds", "activeDeadlineSeconds", "stalledAfterSeconds"])
@pytest.mark.parametrize("seconds", [10**10, 10**12, 2**53])
def test_a_limit_beyond_the_calendar_is_none(limit: str, seconds: int) -> None:
    world = started(**{limit: seconds, "ttlSecondsAfterFinished": seconds})
    for _ in range(2):
        world.train(STEPS // 2)
        world.reconcile()
    assert world.status.phase == "Succeeded"
    assert not world.deleted


def test_a_long_grace_period_is_no_reason_to_stop_looking() -> None:
    world = started(terminationGracePeriodSeconds=2**53)
    world.change("r-trainer-0", terminating_since=world.now)
    world.reconcile()
    assert world.status.gang == "stopping"


@pytest.mark.parametrize("section", ["trainer", "rollout"])
def test_more_pods_than_anybody_can_mean_are_refused_before_they_are_counted(section: str) -> None:
    world = new_world(1, {})
    world.spec[section]["replicas"] = 1_000_001
    decision = world.reconcile()
    assert decision.actions == ()
    assert answer(world, "Valid") == ("False", "Invalid")
    assert f"spec.{section}.replicas: 1000001 is above" in world.status.message


def test_a_run_that_only_gets_back_to_where_it_was_is_not_forgiven() -> None:
    world = started(backoffLimit=9)
    world.train(25)
    world.reconcile()
    happen_to_trainer(world, "error")
    world.reconcile()
    assert world.progress is not None
    for step in (10, 20):
        # Its newest checkpoint was damaged: it went on from an older one.
        world.progress = replace(world.progress, attempt=2, step=step, last_checkpoint_step=step)
        for _ in range(3):
            world.kubelet()
            world.reconcile()
        assert world.status.failures.application == 1
