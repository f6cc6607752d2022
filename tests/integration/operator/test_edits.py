"""A run that is edited, suspended and resumed."""

import pytest

from seele_operator.plan.names import ATTEMPT_LABEL
from tests.support.cluster_runs import ClusterRuns
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for


def uids(runs: ClusterRuns) -> dict[str, str]:
    return {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in runs.pods()}


def test_rollout_servers_are_added_and_removed_while_it_runs(runs: ClusterRuns) -> None:
    runs.running()
    before = uids(runs)
    runs.edit({"rollout": {"replicas": 3}})
    runs.wait_for_pods(5)
    runs.until_condition("RolloutReady", "True", "Ready")
    assert before.items() <= uids(runs).items()
    assert set(uids(runs)) - set(before) == {"run-rollout-1", "run-rollout-2"}
    assert runs.condition("Valid")["observedGeneration"] == 2

    runs.edit({"rollout": {"replicas": 1}})
    runs.wait_for_pods(3)
    assert uids(runs) == before
    status = runs.until("Running", attempt=1)
    assert status["failures"] == {"application": 0, "disruption": 0}
    assert "lastFailure" not in status


def test_a_deadline_can_be_set_while_it_runs(runs: ClusterRuns) -> None:
    runs.running()
    runs.edit({"runPolicy": {"activeDeadlineSeconds": 1}})
    runs.until("Failed")
    assert runs.condition("Failed")["reason"] == "DeadlineExceeded"


@pytest.mark.parametrize(
    ("field", "edit", "back"),
    [
        ("spec.training.steps", {"training": {"steps": 999}}, {"training": {"steps": None}}),
        ("spec.trainer.replicas", {"trainer": {"replicas": 3}}, {"trainer": {"replicas": 2}}),
        ("spec.model.name", {"model": {"name": "other/model"}}, {"model": {"name": "Qwen/Qwen2.5-1.5B"}}),
    ],
)
def test_fields_that_cannot_change_while_it_runs_are_refused_by_name(
    runs: ClusterRuns, field: str, edit: dict[str, object], back: dict[str, object]
) -> None:
    runs.running()
    before = uids(runs)
    runs.edit(edit)
    condition = runs.until_condition("Valid", "False", "ChangeRefused")
    assert field in condition["message"]
    assert condition["observedGeneration"] == 2
    assert runs.phase() == "Running"
    # Fields that may change are still applied.
    runs.edit({"rollout": {"replicas": 2}})
    runs.wait_for_pods(4)
    assert before.items() <= uids(runs).items()
    runs.edit(back)
    runs.until_condition("Valid", "True", "Accepted")
    assert before.items() <= uids(runs).items()
    assert runs.status()["attempt"] == 1


def test_a_refused_edit_takes_effect_in_a_suspended_run(runs: ClusterRuns) -> None:
    runs.running()
    runs.edit({"trainer": {"image": "seele:fixed"}})
    runs.until_condition("Valid", "False", "ChangeRefused")
    runs.suspend(True)
    runs.wait_for_pods(0)
    runs.until_condition("Valid", "True", "Accepted")
    runs.suspend(False)
    runs.restarted()
    assert runs.pod("trainer")["spec"]["containers"][0]["image"] == "seele:fixed"


def test_a_run_that_has_not_started_can_be_changed_freely(runs: ClusterRuns) -> None:
    runs.bring_to("Pending")
    runs.edit({"trainer": {"replicas": 1}, "training": {"steps": 7}})
    runs.wait_for_pods(2)
    runs.release()
    runs.until("Running")
    assert set(uids(runs)) == {"run-trainer-0", "run-rollout-0"}
    assert "steps: 7" in runs.api.get("configmaps", "run-config", runs.namespace)["data"]["config.yaml"]  # type: ignore[index]


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Running", "Restarting"])
def test_a_run_is_suspended_in_each_phase_and_resumed(runs: ClusterRuns, driver: PodsDriver, phase: str) -> None:
    attempt = runs.bring_to(phase)["attempt"]
    if phase == "Running":
        driver.trainer(runs.pod("trainer")).at(6, lastCheckpointStep=5)
        runs.until("Running", step=6)
    restarts = runs.status().get("restarts", 0)
    runs.suspend(True)
    runs.until("Suspended")
    driver.behave(runs.namespace, remove=True)
    runs.wait_for_pods(0)
    wait_for(lambda: "Suspended" in runs.events(), lambda: str(runs.events()))
    runs.until_condition("Progressing", "False", "Suspended")

    runs.release()
    runs.suspend(False)
    status = runs.until("Running", seconds=90)
    assert {pod["metadata"]["labels"][ATTEMPT_LABEL] for pod in runs.wait_for_pods()} == {str(status["attempt"])}
    assert status["attempt"] >= attempt
    # A suspension counts as neither failure nor restart.
    assert status.get("restarts", 0) == restarts
    if phase == "Running":
        assert status["attempt"] == 2
        assert status["lastCheckpoint"]["step"] == 5
    wait_for(lambda: "Resumed" in runs.events(), lambda: str(runs.events()))


def test_a_run_created_as_suspended_has_no_pods(runs: ClusterRuns) -> None:
    runs.make(spec={"runPolicy": {"suspend": True}})
    runs.until("Suspended")
    # The operator has handled a later run, so it would have created this one's pods.
    runs.running("later")
    assert runs.pods() == []
    runs.suspend(False)
    runs.until("Running", attempt=1)


def test_an_ended_run_can_be_neither_suspended_nor_restarted(runs: ClusterRuns) -> None:
    ended = runs.bring_to("Succeeded")
    left = uids(runs)
    runs.suspend(True)
    runs.suspend(False)
    wait_for(lambda: runs.status()["observedGeneration"] == 3, runs.story)
    assert runs.phase() == "Succeeded"
    assert runs.status()["attempt"] == ended["attempt"]
    assert uids(runs).items() <= left.items()
