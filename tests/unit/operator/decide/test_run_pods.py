"""Lost, lingering, orphaned and foreign pods, decision by decision."""

from dataclasses import replace
from datetime import timedelta

import pytest

from seele_operator.decide.decision import AdoptPods, CreatePods, DeletePods
from seele_operator.observe.failures import Disruption, PodFailure
from tests.support.run_world import STEPS, answer, kinds, new_world, started


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


def test_a_pod_that_does_not_stop_is_reported_and_nothing_is_created_next_to_it() -> None:
    world = started()
    world.change("r-trainer-0", terminating_since=world.now)
    world.reconcile()
    world.now += timedelta(seconds=1829)
    world.reconcile()
    assert answer(world, "Progressing") == ("True", "StoppingPods")
    world.now += timedelta(seconds=2)
    decision = world.reconcile()
    assert answer(world, "Progressing") == ("False", "PodStuckTerminating")
    assert "on node n" in decision.status.message
    assert kinds(decision) == []


def test_a_pod_on_a_lost_node_is_reported_soon() -> None:
    world = started()
    world.change("r-trainer-0", terminating_since=world.now, disruption=Disruption("NodeLost", "silent"))
    world.reconcile()
    world.now += timedelta(seconds=61)
    world.reconcile()
    assert answer(world, "Progressing") == ("False", "PodStuckTerminating")


def test_orphans_are_adopted() -> None:
    world = started()
    world.change("r-trainer-0", owner="none")
    decision = world.reconcile()
    assert kinds(decision) == ["AdoptPods"]
    assert isinstance(decision.actions[0], AdoptPods)
    assert world.status.attempt == 1


def test_foreign_pods_are_not_touched() -> None:
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


@pytest.mark.parametrize("policy", ["Running", "All"])
def test_a_sidecar_does_not_keep_a_finished_run_on_its_node(policy: str) -> None:
    world = started(cleanPodPolicy=policy)
    world.change("r-trainer-0", phase="Succeeded", lingers=True)
    world.reconcile()
    assert world.status.phase == "Succeeded"
    assert world.pods["r-trainer-0"].terminating


def test_a_rollout_server_that_is_needed_again_while_it_stops_is_not_lost() -> None:
    world = started()
    for replicas in (1, 2):
        world.edit("rollout", replicas=replicas)
        world.reconcile()
    assert world.pods["r-rollout-1"].terminating
    for _ in range(4):
        world.kubelet()
        world.reconcile()
    assert world.pods["r-rollout-1"].ready
    assert world.status.failures.disruption == 0
    assert world.status.last_failure is None


def test_the_release_of_a_gang_is_repeated() -> None:
    world = new_world(1, {})
    world.spec["scheduling"] = {"gang": "volcano"}
    for _ in range(3):
        world.reconcile()
        world.kubelet()
    world.change("r-rollout-0", phase="Failed")
    world.change("r-rollout-1", phase="Failed")
    world.train(STEPS)
    for _ in range(3):
        assert "ReleaseGang" in kinds(world.reconcile()), "the status does not say whether the last one succeeded"


@pytest.mark.parametrize("suspended", [False, True])
def test_attempts_keep_unique_numbers_after_the_status_is_lost(suspended: bool) -> None:
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


def test_a_run_waits_for_trainers_of_an_earlier_run_of_its_name() -> None:
    world = started(2)
    ghost = world.pods["r-trainer-1"]
    world = new_world(1, {})
    world.pods["r-trainer-1"] = replace(ghost, owner="other", terminating_since=world.now)
    decision = world.reconcile()
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]
    assert decision.recheck_seconds
    del world.pods["r-trainer-1"]
    assert kinds(world.reconcile()) == ["CreatePods"]


def test_a_server_that_does_not_stop_is_reported_in_time() -> None:
    world = started()
    world.change("r-rollout-0", terminating_since=world.now)
    assert world.reconcile().recheck_seconds
    assert world.reconcile().recheck_seconds
    world.now += timedelta(seconds=1831)
    world.reconcile()
    assert answer(world, "Progressing") == ("False", "PodStuckTerminating")


def test_a_huge_grace_period_is_handled() -> None:
    world = started(terminationGracePeriodSeconds=2**53)
    world.change("r-trainer-0", terminating_since=world.now)
    world.reconcile()
    assert world.status.gang == "stopping"
