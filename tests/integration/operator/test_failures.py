"""Runs whose pods or nodes fail, or that exceed a quota."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from seele_operator.plan.names import ATTEMPT_LABEL
from tests.support import REPOSITORY
from tests.support.cluster_runs import ClusterRuns
from tests.support.operator_process import OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for

TO_NEXT_ATTEMPT_SECONDS = 15.0
"""From a failure to the first pod of the next attempt, on a busy machine; the documentation promises 5 s."""

Fail = Callable[[PodsDriver, ClusterRuns, dict[str, Any]], None]


def exits(code: int) -> Fail:
    return lambda driver, runs, pod: driver.finish(pod, code, message="last words")


def runs_out_of_memory(driver: PodsDriver, runs: ClusterRuns, pod: dict[str, Any]) -> None:
    driver.run_out_of_memory(pod)


def is_evicted(driver: PodsDriver, runs: ClusterRuns, pod: dict[str, Any]) -> None:
    driver.evict(pod)


def is_deleted(driver: PodsDriver, runs: ClusterRuns, pod: dict[str, Any]) -> None:
    runs.api.delete("pods", pod["metadata"]["name"], runs.namespace)


FAILURES = {
    "exit 1": (exits(1), "application", "Error", 1),
    "killed": (exits(137), "application", "Error", 137),
    "out of memory": (runs_out_of_memory, "application", "OOMKilled", 137),
    "evicted": (is_evicted, "disruption", "Evicted", None),
    "deleted": (is_deleted, "disruption", "PodDeleted", None),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_one_lost_trainer_restarts_the_gang(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess, failure: str
) -> None:
    fail, kind, reason, exit_code = FAILURES[failure]
    runs.running()
    restarts = operator.metric("seele_operator_restarts_total", **{"class": kind})
    before = runs.pods()
    fail(driver, runs, runs.pod("trainer", 1))
    began = time.monotonic()
    wait_for(lambda: runs.pods_of_attempt(2), lambda: f"the next attempt\n{runs.story()}")
    assert time.monotonic() - began < TO_NEXT_ATTEMPT_SECONDS
    status = runs.restarted()
    assert not {pod["metadata"]["uid"] for pod in before} & {pod["metadata"]["uid"] for pod in runs.pods()}
    last = status["lastFailure"]
    assert (last["class"], last["reason"], last["pod"], last["attempt"]) == (kind, reason, "run-trainer-1", 1)
    if exit_code is not None:
        assert (last["exitCode"], last["container"]) == (exit_code, "trainer")
    assert status["failures"] == {"application": 0, "disruption": 0} | {kind: 1}
    assert status["restarts"] == 1
    wait_for(lambda: "Restarting" in runs.events(), lambda: str(runs.events()))
    # At least: runs of other tests fail while their namespaces are deleted.
    assert operator.metric("seele_operator_restarts_total", **{"class": kind}) >= restarts + 1


def test_a_trainer_that_rejects_its_input_fails_the_run_at_once(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running()
    driver.finish(runs.pod("trainer"), 2, message="dataset.path: /data/train.jsonl does not exist")
    status = runs.until("Failed", attempt=1)
    assert runs.condition("Failed")["reason"] == "BadInput"
    assert "/data/train.jsonl does not exist" in status["message"]
    # The failed trainer keeps its log; running pods are deleted.
    (left,) = runs.wait_for_pods(1)
    assert left["metadata"]["name"] == "run-trainer-0"


def test_failures_beyond_the_budget_fail_the_run(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running(spec={"runPolicy": {"backoffLimit": 1}})
    driver.finish(runs.pod("trainer"), 1)
    runs.restarted()
    driver.run_out_of_memory(runs.pod("trainer", 1))
    status = runs.until("Failed", attempt=2)
    assert status["failures"]["application"] == 2
    assert (status["lastFailure"]["reason"], status["lastFailure"]["attempt"]) == ("OOMKilled", 2)
    assert runs.condition("Failed")["reason"] == "BackoffLimitExceeded"
    wait_for(lambda: "Failed" in runs.events(), lambda: str(runs.events()))


@pytest.mark.parametrize("code", [0, 1])
def test_a_server_that_dies_twice_of_the_same_error_ends_the_run_with_its_reason(
    runs: ClusterRuns, driver: PodsDriver, code: int
) -> None:
    log = (REPOSITORY / "tests" / "unit" / "data" / "server_logs" / "unsupported-head-dim.log").read_text()
    runs.running()
    first = runs.pod("rollout")
    driver.write_log(first, "rollout", log)
    # The kubelet keeps the end of the log, and nothing after exit code 0.
    driver.finish(first, code, message=log[-2048:] if code else "")
    runs.wait_until_gone([first])
    runs.wait_for_pods()
    # A pod without a node has no log.
    wait_for(lambda: runs.pod("rollout")["status"]["phase"] == "Running", runs.story)
    assert runs.phase() == "Running"

    driver.finish(runs.pod("rollout"), code)

    status = runs.until("Failed", attempt=1)
    error = "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
    how = "ended before the run did" if code == 0 else "ended"
    assert status["lastFailure"]["message"].startswith(f"container rollout {how}, with exit code {code}:\n{error}\n")
    assert status["lastFailure"]["error"] == error
    assert status["failures"]["application"] == 2
    assert runs.condition("Failed")["reason"] == "RepeatedFailure"
    assert error in runs.condition("Failed")["message"]
    wait_for(lambda: {"Failed", "RolloutReplaced"} <= {*runs.events()}, lambda: str(runs.events()))


def test_progress_resets_the_count_of_failures(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running(spec={"runPolicy": {"backoffLimit": 1}})
    driver.finish(runs.pod("trainer"), 1)
    runs.restarted()
    driver.trainer(runs.pod("trainer")).at(5, lastCheckpointStep=5)
    status = runs.until("Running", step=5)
    assert status["failures"]["application"] == 0
    driver.finish(runs.pod("trainer"), 1)
    runs.restarted(3)


def test_a_restart_waits_for_a_stuck_pod(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running()
    driver.behave(runs.namespace, remove=False)
    driver.finish(runs.pod("trainer"), 1)
    runs.until("Restarting", attempt=2)
    wait_for(lambda: all(pod["metadata"].get("deletionTimestamp") for pod in runs.pods()), "all are asked to stop")
    stuck = runs.pods()
    assert stuck
    assert {pod["metadata"]["labels"][ATTEMPT_LABEL] for pod in stuck} == {"1"}
    assert runs.condition("Progressing")["reason"] == "StoppingPods"
    for pod in stuck[1:]:
        driver.remove(pod)
    runs.wait_for_pods(1)
    assert runs.pods_of_attempt(2) == []
    driver.remove(stuck[0])
    runs.restarted()


def test_a_restart_waits_for_the_pods_of_a_lost_node(runs: ClusterRuns, driver: PodsDriver) -> None:
    node = driver.add_node(f"{runs.namespace}-lost")
    driver.behave(runs.namespace, schedule=False)
    runs.make(spec={"runPolicy": {"terminationGracePeriodSeconds": 1}})
    runs.wait_for_pods()
    driver.schedule(runs.pod("trainer", 1), node)
    driver.behave(runs.namespace, schedule=True)
    runs.until("Running")
    lost = runs.pod("trainer", 1)
    driver.lose_node(node)
    status = runs.until("Restarting", seconds=90, attempt=2)
    assert (status["lastFailure"]["class"], status["lastFailure"]["reason"]) == ("disruption", "NodeLost")
    (stuck,) = runs.wait_for_pods(1)
    assert stuck["metadata"]["uid"] == lost["metadata"]["uid"]
    condition = runs.until_condition("Progressing", "False", "PodStuckTerminating", seconds=90)
    assert "run-trainer-1" in condition["message"]
    assert node in condition["message"]
    assert runs.pods_of_attempt(2) == []
    # The node is back: its kubelet learns of the deletion.
    driver.find_node(node)
    runs.restarted()


@pytest.mark.parametrize("failure", ["exit 1", "out of memory", "evicted", "deleted"])
def test_a_lost_rollout_pod_is_replaced_alone(runs: ClusterRuns, driver: PodsDriver, failure: str) -> None:
    runs.running()
    trainers = [runs.pod("trainer", index)["metadata"]["uid"] for index in range(2)]
    lost = runs.pod("rollout")
    fail, kind, reason, _ = FAILURES[failure]
    fail(driver, runs, lost)
    runs.wait_until_gone([lost])
    runs.wait_for_pods()
    runs.until_condition("RolloutReady", "True", "Ready")
    status = runs.until("Running", attempt=1)
    assert [runs.pod("trainer", index)["metadata"]["uid"] for index in range(2)] == trainers
    assert runs.pod("rollout")["metadata"]["labels"][ATTEMPT_LABEL] == "1"
    assert (status["lastFailure"]["class"], status["lastFailure"]["reason"]) == (kind, reason)
    assert status["restarts"] == 0
    wait_for(lambda: "RolloutReplaced" in runs.events(), lambda: str(runs.events()))


def test_a_run_without_a_node_says_so_and_fails_at_its_deadline(runs: ClusterRuns, driver: PodsDriver) -> None:
    driver.behave(runs.namespace, schedule=False)
    runs.make(spec={"runPolicy": {"startDeadlineSeconds": 4}})
    for pod in runs.wait_for_pods():
        driver.unschedulable(pod, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    condition = runs.until_condition("Scheduled", "False", "Unschedulable")
    assert "3 Insufficient nvidia.com/gpu" in condition["message"]
    assert runs.phase() == "Pending"
    status = runs.until("Failed")
    assert runs.condition("Failed")["reason"] == "StartDeadlineExceeded"
    assert "3 Insufficient nvidia.com/gpu" in status["message"]
    runs.wait_for_pods(0)


def test_an_image_that_cannot_be_pulled_is_named(runs: ClusterRuns, driver: PodsDriver) -> None:
    driver.behave(runs.namespace, start=False)
    runs.make(spec={"rollout": {"image": "registry.example/vllm:missing"}})
    runs.wait_for_pods()
    driver.image_error(runs.pod("rollout"))
    condition = runs.until_condition("RolloutReady", "False", "ImagePullBackOff")
    assert "registry.example/vllm:missing" in condition["message"]
    wait_for(lambda: "registry.example/vllm:missing" in runs.status()["message"], runs.story)
    # Once it can be pulled, the run starts without an edit.
    driver.behave(runs.namespace, start=True)
    runs.until("Running", attempt=1)


def test_an_exceeded_quota_is_named_and_waited_for(runs: ClusterRuns) -> None:
    runs.limit_pods(1)
    runs.make()
    condition = runs.until_condition("Scheduled", "False", "QuotaExceeded")
    assert "exceeded quota: few" in condition["message"]
    assert runs.phase() == "Pending"
    assert len(runs.pods()) <= 1
    runs.limit_pods(None)
    runs.until("Running", seconds=90, attempt=1)
    assert runs.condition("Scheduled")["status"] == "True"


def test_a_run_without_new_steps_is_restarted(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running(spec={"runPolicy": {"stalledAfterSeconds": 3}})
    driver.trainer(runs.pod("trainer")).at(1)
    status = runs.restarted()
    assert (status["lastFailure"]["class"], status["lastFailure"]["reason"]) == ("application", "Stalled")


def test_a_run_fails_at_its_deadline(runs: ClusterRuns) -> None:
    runs.running(spec={"runPolicy": {"activeDeadlineSeconds": 4}})
    runs.until("Failed")
    assert runs.condition("Failed")["reason"] == "DeadlineExceeded"
    runs.wait_for_pods(0)
