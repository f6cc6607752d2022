"""Specs that are edited, invalid or no longer readable, decision by decision."""

import json

import pytest

from seele_operator.decide.accept import differences
from seele_operator.decide.decision import CreatePods, DeletePods, UpdateChildren
from seele_operator.observe.pods import Waiting
from seele_operator.observe.trainer import ProgressSeen
from tests.support.run_world import STEPS, World, answer, kinds, new_world, started


def test_rollout_servers_can_be_added_and_taken_away_while_training() -> None:
    world = started()
    world.edit("rollout", replicas=3)
    decision = world.reconcile()
    assert [type(action) for action in decision.actions] == [UpdateChildren, CreatePods]
    assert "r-rollout-2" in world.pods
    assert world.status.failures.disruption == 0
    for _ in range(3):
        world.kubelet()
        world.reconcile()
    world.edit("rollout", replicas=1)
    world.reconcile()
    world.kubelet()
    world.reconcile()
    assert sorted(world.pods) == ["r-rollout-0", "r-trainer-0"]
    assert world.status.attempt == 1
    assert world.status.failures.disruption == 0


def test_an_edit_that_training_does_not_allow_is_refused_and_the_run_continues() -> None:
    world = started()
    world.train(3)
    world.reconcile()
    world.spec["training"]["learningRate"] = 2e-6
    world.edit("runPolicy", backoffLimit=7)
    decision = world.reconcile()
    assert answer(world, "Valid") == ("False", "ChangeRefused")
    assert [event.reason for event in decision.events] == ["ChangeRefused"]
    assert world.reconcile().events == ()
    assert "spec.training.learningRate: was 1e-06 and is 2e-06" in world.status.message
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]
    assert '"backoffLimit":7' in (world.status.accepted_spec or ""), "what may change changes"
    assert '"learningRate":1e-06' in (world.status.accepted_spec or "")
    world.edit("training", learningRate=1e-6)
    world.reconcile()
    assert answer(world, "Valid")[0] == "True"


def test_an_invalid_edit_does_not_disturb_the_run() -> None:
    world = started()
    world.edit("training", learningRat=1.0)
    assert world.reconcile().status.phase == "Running"
    assert answer(world, "Valid") == ("False", "Invalid")
    assert "did you mean" in world.status.message


def test_an_invalid_run_waits_for_a_better_spec() -> None:
    world = new_world(1, {})
    del world.spec["model"]
    decision = world.reconcile()
    assert (decision.status.phase, decision.actions) == ("Pending", ())
    assert answer(world, "Valid") == ("False", "Invalid")
    assert [event.reason for event in decision.events] == ["Invalid"]
    assert world.reconcile().events == ()
    world.spec["model"] = {"name": "m"}
    world.generation += 1
    assert kinds(world.reconcile()) == ["CreatePods"]


def test_an_image_that_cannot_be_pulled_is_reported_and_can_be_repaired() -> None:
    world = new_world(1, {})
    world.reconcile()
    world.kubelet()
    words = Waiting("ImagePullBackOff", 'Back-off pulling image "nothing:1"')
    world.change("r-trainer-0", waiting=words)
    world.reconcile()
    assert answer(world, "TrainerReady") == ("False", "ImagePullBackOff")
    assert answer(world, "Progressing") == ("False", "ImagePullBackOff")
    assert "nothing:1" in world.status.message
    world.edit("trainer", image="seele:0.1.1")
    decision = world.reconcile()
    assert answer(world, "Valid")[0] == "True"
    assert decision.status.attempt == 2
    assert decision.status.failures.application == 0
    world.kubelet()
    world.reconcile()
    assert len(world.pods) == 3


def test_a_refused_server_can_be_repaired_while_trainers_wait_for_it() -> None:
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
    world.edit("rollout", image="vllm:better")
    decision = world.reconcile()
    assert answer(world, "Valid")[0] == "True"
    assert (decision.status.attempt, decision.status.failures.application) == (2, 0)


def unreadable(world: World) -> None:
    """Make the accepted spec invalid, as an upgrade of the operator that renames a field does."""
    world.spec["hints"] = {"nameOfAnOldRelease": 1}
    stored = json.loads(world.stored["acceptedSpec"])
    world.stored["acceptedSpec"] = json.dumps(
        {**stored, "hints": world.spec["hints"]}, separators=(",", ":"), sort_keys=True
    )


def test_a_run_whose_spec_has_become_unreadable_continues_and_is_reported() -> None:
    world = started(2)
    unreadable(world)
    decision = world.reconcile()
    assert (decision.status.phase, decision.actions) == ("Running", ())
    assert answer(world, "Valid") == ("False", "Invalid")
    assert answer(world, "TrainerReady")[0] == "True"
    assert [event.reason for event in decision.events] == ["Invalid"]
    assert world.reconcile().events == ()
    del world.spec["hints"]
    world.generation += 1
    decision = world.reconcile()
    assert (decision.status.phase, decision.status.attempt) == ("Running", 1)
    assert not [action for action in decision.actions if isinstance(action, CreatePods | DeletePods)]


def test_an_ended_run_whose_spec_has_become_unreadable_stays_ended() -> None:
    world = started()
    world.train(STEPS)
    world.reconcile()
    unreadable(world)
    assert [event.reason for event in world.reconcile().events] == ["Invalid"]
    assert world.status.phase == "Succeeded"
    assert answer(world, "Complete")[0] == "True"
    assert world.reconcile().events == ()


@pytest.mark.parametrize("section", ["trainer", "rollout"])
def test_absurd_numbers_of_pods_are_refused(section: str) -> None:
    world = new_world(1, {})
    world.spec[section]["replicas"] = 1_000_001
    decision = world.reconcile()
    assert decision.actions == ()
    assert answer(world, "Valid") == ("False", "Invalid")
    assert f"spec.{section}.replicas: 1000001 is above" in world.status.message


def test_a_section_that_appears_is_a_difference() -> None:
    assert differences({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}, "d": {"e": 3}}) == [
        "a.c: was null and is 2",
        "d: was null and is a mapping",
    ]
