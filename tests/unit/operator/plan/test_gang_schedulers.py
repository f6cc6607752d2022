"""What gang schedulers need on the pods of a run, and their extra objects."""

from typing import Any

import pytest

from seele_operator.api.seelerun import Scheduling, SeeleRun
from seele_operator.decide.decision import DeletePods
from seele_operator.observe.failures import PodFailure
from seele_operator.plan.gang_schedulers import GANG_SCHEDULERS, gang_scheduler_of
from seele_operator.plan.objects import gang_objects, plan, pods
from seele_operator.validation.load import check_run, parse_run
from tests.support.run_world import World, new_world
from tests.support.spec_data import patched, small_run


def run_in(gang: str, **spec: Any) -> SeeleRun:
    """Two trainers and three servers."""
    sizes = {"trainer": {"replicas": 2}, "rollout": {"replicas": 3}, "scheduling": {"gang": gang}}
    metadata = {"name": "demo", "namespace": "lab", "uid": "0b5e"}
    run = parse_run(patched(small_run(), {"metadata": metadata, "spec": patched(sizes, spec)}))
    assert check_run(run) == []
    return run


def in_queue(gang: str, **spec: Any) -> SeeleRun:
    return run_in(gang, **patched({"scheduling": {"queueName": "research"}}, spec))


def test_every_value_of_gang_has_a_scheduler() -> None:
    choices = Scheduling.model_json_schema()["properties"]["gang"]["enum"]

    assert sorted(GANG_SCHEDULERS) == sorted(choices)


def test_without_a_gang_scheduler_nothing_is_added() -> None:
    run = run_in("none")

    assert gang_objects(run) == []
    for pod in pods(run, 1).values():
        assert set(pod["metadata"]["labels"]) == {
            "app.kubernetes.io/name",
            *(f"seele.dev/{label}" for label in ("run", "role", "index", "attempt")),
        }
        assert "annotations" not in pod["metadata"]
        assert "schedulerName" not in pod["spec"]


@pytest.mark.parametrize("gang", ["volcano", "coscheduling"])
class TestPodGroups:
    def test_the_group_belongs_to_the_run_and_has_its_size(self, gang: str) -> None:
        run = run_in(gang)
        (group,) = gang_objects(run)

        assert group["kind"] == "PodGroup"
        assert (group["metadata"]["name"], group["metadata"]["namespace"]) == ("demo", "lab")
        assert [owner["uid"] for owner in group["metadata"]["ownerReferences"]] == ["0b5e"]
        assert group["spec"]["minMember"] == len(pods(run, 1)) == 5
        assert group in plan(run, 1)

    def test_it_is_the_same_in_every_attempt(self, gang: str) -> None:
        run = run_in(gang)
        first, second = ([m for m in plan(run, attempt) if m["kind"] == "PodGroup"] for attempt in (1, 2))

        assert first == second

    def test_without_servers_only_trainers_count(self, gang: str) -> None:
        (group,) = gang_objects(run_in(gang, rollout={"engine": "transformers", "replicas": 1}))

        assert group["spec"]["minMember"] == 2

    def test_the_template_may_name_another_scheduler(self, gang: str) -> None:
        planned = pods(run_in(gang, rollout={"podTemplate": {"spec": {"schedulerName": "own"}}}), 1)

        assert planned["demo-rollout-0"]["spec"]["schedulerName"] == "own"
        assert planned["demo-trainer-0"]["spec"]["schedulerName"] != "own"

    def test_its_pods_can_be_replaced_one_by_one(self, gang: str) -> None:
        assert not gang_scheduler_of(run_in(gang)).all_or_nothing


def test_volcano_finds_its_group_queue_and_priority() -> None:
    run = in_queue("volcano", scheduling={"priorityClassName": "high"})
    (group,) = gang_objects(run)

    assert group["apiVersion"] == "scheduling.volcano.sh/v1beta1"
    assert group["spec"] == {"minMember": 5, "queue": "research", "priorityClassName": "high"}
    for pod in pods(run, 1).values():
        assert pod["metadata"]["annotations"]["scheduling.k8s.io/group-name"] == "demo"
        assert pod["spec"]["schedulerName"] == "volcano"


def test_volcano_uses_its_default_queue_if_none_is_named() -> None:
    (group,) = gang_objects(run_in("volcano"))

    assert group["spec"] == {"minMember": 5}


def test_coscheduling_finds_its_group_by_label() -> None:
    run = run_in("coscheduling")
    (group,) = gang_objects(run)

    assert group["apiVersion"] == "scheduling.x-k8s.io/v1alpha1"
    for pod in pods(run, 1).values():
        assert pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] == "demo"
        assert pod["spec"]["schedulerName"] == "scheduler-plugins-scheduler"


class TestKueue:
    def test_each_attempt_has_its_own_group(self) -> None:
        for attempt in (1, 2):
            for pod in pods(in_queue("kueue"), attempt).values():
                labels = pod["metadata"]["labels"]
                assert labels["kueue.x-k8s.io/queue-name"] == "research"
                assert labels["kueue.x-k8s.io/pod-group-name"] == f"demo-{attempt}"
                assert "schedulerName" not in pod["spec"]

    def test_all_pods_state_the_groups_size_and_that_it_ends_with_them(self) -> None:
        for pod in pods(in_queue("kueue"), 1).values():
            assert pod["metadata"]["annotations"] == {
                "kueue.x-k8s.io/pod-group-total-count": "5",
                "kueue.x-k8s.io/retriable-in-group": "false",
            }

    def test_the_template_cannot_remove_a_pod_from_its_group(self) -> None:
        template = {
            "metadata": {
                "labels": {"kueue.x-k8s.io/queue-name": "other", "team": "nlp"},
                "annotations": {"kueue.x-k8s.io/pod-group-total-count": "1", "note": "x"},
            }
        }
        pod = pods(in_queue("kueue", trainer={"podTemplate": template}), 1)["demo-trainer-0"]

        assert pod["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "research"
        assert pod["metadata"]["labels"]["team"] == "nlp"
        assert pod["metadata"]["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "5"
        assert pod["metadata"]["annotations"]["note"] == "x"

    def test_kueue_needs_no_extra_objects(self) -> None:
        assert gang_objects(in_queue("kueue")) == []

    def test_its_pods_cannot_be_replaced_one_by_one(self) -> None:
        assert gang_scheduler_of(in_queue("kueue")).all_or_nothing


class TestAGangOfFixedSize:
    """Kueue keeps a failed pod until one of another name replaces it, but the names of ours are fixed."""

    def world(self) -> World:
        world = new_world(2, {})
        world.spec["scheduling"] = {"gang": "kueue", "queueName": "research"}
        world.reconcile()
        for _ in range(3):
            world.kubelet()
            world.reconcile()
        assert world.status.phase == "Running"
        return world

    def test_a_lost_server_restarts_all(self) -> None:
        world = self.world()
        crash = PodFailure("application", "Error", "rollout", 1, "cuda")
        world.change("r-rollout-1", phase="Failed", ready=False, failure=crash)
        decision = world.reconcile()

        assert decision.status.phase == "Restarting"
        assert decision.status.attempt == 2
        assert decision.status.last_failure is not None
        assert decision.status.last_failure.pod == "r-rollout-1"
        (action,) = decision.actions
        assert isinstance(action, DeletePods)
        assert len(action.pods) == 4

    def test_another_number_of_servers_is_refused_while_pods_are_at_work(self) -> None:
        world = self.world()
        world.edit("rollout", replicas=3)
        decision = world.reconcile()

        valid = decision.status.condition("Valid")
        assert valid is not None
        assert (valid.status, valid.reason) == ("False", "ChangeRefused")
        assert "spec.rollout.replicas: was 2 and is 3" in valid.message
        assert "r-rollout-2" not in world.pods
        assert decision.status.attempt == 1
