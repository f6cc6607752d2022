"""The life of a run, decision by decision."""

import json
from datetime import timedelta

import pytest

from seele_operator.decide.decision import DeleteRun, ReleaseGang
from tests.support.run_world import STEPS, answer, happen_to_trainer, kinds, new_world, started


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


def test_progress_is_reported() -> None:
    world = started()
    world.train(15)
    world.reconcile()
    status = world.status
    assert (status.step, status.steps) == (15, STEPS)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.path == "checkpoints/step-10"
    assert status.last_step_time == world.now


def test_progress_of_an_earlier_attempt_is_ignored() -> None:
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


def test_a_finished_run_is_deleted_after_its_time_to_live() -> None:
    world = started(ttlSecondsAfterFinished=60)
    world.train(STEPS)
    decision = world.reconcile()
    assert decision.recheck_seconds == 60
    world.now += timedelta(seconds=61)
    assert DeleteRun() in world.reconcile().actions


@pytest.mark.parametrize("steps_before", range(5))
def test_suspend_and_resume_in_each_phase(steps_before: int) -> None:
    world = new_world(1, {})
    for _ in range(steps_before):
        world.reconcile()
        world.kubelet()
    attempts = world.status.attempt
    world.edit("runPolicy", suspend=True)
    pods = bool(world.pods)
    assert world.reconcile().status.phase == "Suspended"
    assert answer(world, "Progressing") == ("False", "StoppingPods" if pods else "Suspended")
    world.kubelet()
    decision = world.reconcile()
    assert not world.pods
    assert answer(world, "Progressing") == ("False", "Suspended")
    assert ReleaseGang in [type(action) for action in decision.actions]
    world.now += timedelta(hours=5)
    world.reconcile()
    world.edit("runPolicy", suspend=False)
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
    assert decision.recheck_seconds == 50
    world.now += timedelta(seconds=51)
    world.reconcile()
    assert answer(world, "Failed") == ("True", "DeadlineExceeded")


def test_a_success_that_comes_with_a_suspension_counts() -> None:
    world = started()
    world.train(STEPS)
    world.spec["runPolicy"]["suspend"] = True
    assert world.reconcile().status.phase == "Succeeded"


def test_the_termination_message_of_a_trainer_is_the_final_progress() -> None:
    world = started()
    world.train(STEPS - 1)
    world.reconcile()
    words = json.dumps({"step": STEPS, "steps": STEPS, "accuracy": 0.9, "policyVersion": 41, "lastCheckpointStep": 40})
    world.change("r-trainer-0", phase="Succeeded", termination_message=words)
    status = world.reconcile().status
    assert (status.phase, status.accuracy, status.policy_version) == ("Succeeded", 0.9, 41)
    assert status.last_checkpoint is not None
    assert status.last_checkpoint.step == 40


def test_the_last_checkpoint_of_a_suspended_trainer_is_recorded() -> None:
    world = started()
    world.train(13)
    world.reconcile()
    world.spec["runPolicy"]["suspend"] = True
    world.reconcile()
    words = json.dumps({"attempt": 1, "step": 14, "steps": STEPS, "lastCheckpointStep": 14})
    world.change("r-trainer-0", phase="Failed", termination_message=words)
    status = world.reconcile().status
    assert status.last_checkpoint is not None
    assert (status.phase, status.step, status.last_checkpoint.step) == ("Suspended", 14, 14)
