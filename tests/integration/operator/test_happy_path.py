"""A run without failures, from `kubectl apply` to its end."""

import pytest

from seele_operator.api.status import CONDITION_TYPES
from tests.support.cluster_runs import SECONDS, ClusterRuns
from tests.support.kubernetes_api import ApiError
from tests.support.operator_process import OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for


def test_a_run_goes_from_pending_to_succeeded(runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess) -> None:
    driver.behave(runs.namespace, schedule=False)
    succeeded = operator.metric("seele_operator_runs", phase="Succeeded")
    runs.make()
    runs.until("Pending", attempt=1)
    pods = runs.wait_for_pods()
    assert {pod["metadata"]["name"] for pod in pods} == {"run-trainer-0", "run-trainer-1", "run-rollout-0"}

    driver.behave(runs.namespace, schedule=True, ready=False)
    runs.until("Starting")
    assert runs.condition("Scheduled")["status"] == "True"
    assert runs.condition("TrainerReady")["status"] == "False"

    runs.release()
    status = runs.until("Running")
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Valid": "True",
        "Scheduled": "True",
        "RolloutReady": "True",
        "TrainerReady": "True",
        "Progressing": "True",
        "Complete": "False",
        "Failed": "False",
    }
    assert [one["type"] for one in status["conditions"]] == list(CONDITION_TYPES)
    assert all(one["observedGeneration"] == 1 for one in status["conditions"])

    driver.trainer(runs.pod("trainer")).at(
        7, reward=0.25, accuracy=0.5, hintRate=0.125, etaSeconds=90.0, lastCheckpointStep=5
    )
    status = runs.until("Running", step=7)
    assert status["steps"] == 20
    assert (status["reward"], status["accuracy"], status["hintRate"]) == (0.25, 0.5, 0.125)
    assert (status["policyVersion"], status["etaSeconds"]) == (7, 90.0)
    assert (status["lastCheckpoint"]["step"], status["lastCheckpoint"]["path"]) == (5, "checkpoints/step-5")
    assert status["lastCheckpoint"]["time"] >= status["attemptRunningTime"]

    runs.finish_trainers()
    status = runs.until("Succeeded", step=20)
    assert "completionTime" in status
    assert runs.condition("Complete")["status"] == "True"
    # Running pods are deleted; the trainers stay for their logs.
    runs.wait_for_pods(2)
    assert {pod["metadata"]["labels"]["seele.dev/role"] for pod in runs.pods()} == {"trainer"}
    wait_for(lambda: set(runs.events()) == {"Started", "Running", "Succeeded"}, lambda: str(runs.events()))
    assert operator.metric("seele_operator_runs", phase="Succeeded") == succeeded + 1
    assert operator.metric("seele_operator_time_to_running_seconds_count") >= 1


def test_children_belong_to_the_run_and_are_deleted_with_it(runs: ClusterRuns) -> None:
    uid = runs.running()["conditions"] and runs.get()["metadata"]["uid"]
    kinds = ("pods", "configmaps", "services", "networkpolicies")
    children = [child for kind in kinds for child in runs.api.list(kind, runs.namespace, "seele.dev/run=run")]
    assert {child["metadata"]["name"] for child in children} >= {"run-config", "run-trainer", "run-rollout"}
    for child in children:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["uid"], owner["controller"], owner["kind"]) == (uid, True, "SeeleRun")
        assert "finalizers" not in child["metadata"]
        assert not any("kopf" in key for key in child["metadata"].get("annotations", {}))
    run = runs.get()["metadata"]
    assert "finalizers" not in run
    assert "annotations" not in run

    runs.delete()
    wait_for(runs.gone, "the run is gone", 5)
    for kind in kinds:
        wait_for(
            lambda kind=kind: not runs.api.list(kind, runs.namespace, "seele.dev/run=run"), f"{kind} are gone", SECONDS
        )


def test_the_eviction_of_a_trainer_is_refused(runs: ClusterRuns) -> None:
    runs.running()

    def counted() -> bool:
        budget = runs.api.get("poddisruptionbudgets", "run-trainer", runs.namespace) or {}
        return bool(budget.get("status", {}).get("expectedPods"))

    wait_for(counted, "the pods of the budget are counted", SECONDS)
    eviction = {"kind": "Eviction", "metadata": {"name": "run-trainer-0"}}
    eviction["apiVersion"] = "policy/v1" if runs.plane.version >= (1, 22) else "policy/v1beta1"
    with pytest.raises(ApiError) as refused:
        runs.api.request("POST", f"api/v1/namespaces/{runs.namespace}/pods/run-trainer-0/eviction", eviction)
    assert refused.value.code == 429
    assert runs.pods_of_attempt(1)


def test_columns_of_kubectl_get_show_the_state_of_runs(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running()
    driver.trainer(runs.pod("trainer")).at(3, accuracy=0.75, hintRate=0.25)
    runs.until("Running", step=3)
    table = runs.api.request("GET", runs.api.path("seeleruns", None, runs.namespace), accept=TABLE)
    definitions = table["columnDefinitions"]
    row = dict(zip((column["name"] for column in definitions), table["rows"][0]["cells"], strict=True))
    assert [column["name"] for column in definitions if column["priority"] == 0] == [
        "Name",
        "Phase",
        "Step",
        "Accuracy",
        "Hint",
        "Age",
    ]
    assert (row["Name"], row["Phase"], row["Step"]) == ("run", "Running", 3)
    assert (float(row["Accuracy"]), float(row["Hint"])) == (0.75, 0.25)


def test_a_finished_run_is_deleted_after_its_time_to_live(runs: ClusterRuns) -> None:
    runs.running(spec={"runPolicy": {"ttlSecondsAfterFinished": 1}})
    runs.finish_trainers()
    wait_for(runs.gone, lambda: f"the run is deleted\n{runs.story()}", SECONDS)
    runs.wait_for_pods(0)


@pytest.mark.parametrize(("policy", "left"), [("All", 0), ("None", 3)])
def test_pods_are_deleted_by_the_clean_pod_policy(runs: ClusterRuns, policy: str, left: int) -> None:
    runs.running(spec={"runPolicy": {"cleanPodPolicy": policy}})
    runs.finish_trainers()
    runs.until("Succeeded")
    runs.wait_for_pods(left)


def test_an_ended_run_stays_ended_without_its_pods(runs: ClusterRuns, operator: OperatorProcess) -> None:
    runs.running()
    runs.finish_trainers()
    before = runs.until("Succeeded", gang="released")
    for pod in runs.pods():
        runs.api.delete("pods", pod["metadata"]["name"], runs.namespace)
    runs.wait_for_pods(0)
    operator.kill()
    operator.start()
    # The operator has handled a later run, so it would have changed the first one by now.
    runs.running("later")
    assert runs.status() == before
    assert runs.pods() == []


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
