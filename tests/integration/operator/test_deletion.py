"""Runs are deleted at once in each phase, with or without the operator."""

import pytest

from tests.support.cluster_runs import SECONDS, ClusterRuns
from tests.support.operator_process import OperatorProcess
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for

KINDS = ("pods", "configmaps", "services", "networkpolicies", "poddisruptionbudgets")


def children(runs: ClusterRuns) -> list[str]:
    found = [(kind, child) for kind in KINDS for child in runs.api.list(kind, runs.namespace, "seele.dev/run=run")]
    return [f"{kind}/{child['metadata']['name']}" for kind, child in found]


@pytest.mark.parametrize("phase", ["Pending", "Starting", "Running", "Restarting", "Suspended", "Succeeded", "Failed"])
def test_a_run_can_be_deleted_in_each_phase(runs: ClusterRuns, driver: PodsDriver, phase: str) -> None:
    runs.bring_to(phase)
    assert children(runs)
    runs.delete()
    wait_for(runs.gone, "no finalizer holds it", 5)
    driver.behave(runs.namespace, remove=True)
    wait_for(lambda: not children(runs), lambda: f"its children are gone: {children(runs)}", SECONDS)
    # Nothing is created again, although the operator has handled a later run.
    runs.release()
    runs.running("later")
    assert not children(runs)


def test_a_run_can_be_deleted_while_the_operator_is_down(runs: ClusterRuns, operator: OperatorProcess) -> None:
    runs.running()
    operator.kill()
    runs.delete()
    wait_for(runs.gone, "nothing holds it", 5)
    wait_for(lambda: not children(runs), lambda: f"its children are gone: {children(runs)}", SECONDS)
    operator.start()
    runs.running("later")
    assert not children(runs)


def test_a_namespace_can_be_deleted_while_the_operator_is_down(runs: ClusterRuns, operator: OperatorProcess) -> None:
    runs.running()
    operator.kill()
    runs.api.delete("namespaces", runs.namespace)
    wait_for(lambda: runs.api.get("namespaces", runs.namespace) is None, "the namespace is gone", 40)


def test_a_new_run_of_the_same_name_waits_for_the_old_ones_pods(runs: ClusterRuns, driver: PodsDriver) -> None:
    runs.running()
    old = runs.pods()
    driver.behave(runs.namespace, remove=False)
    runs.delete()
    wait_for(runs.gone, "the run is gone", 5)
    runs.make()
    runs.until_condition("Progressing", "False", "NameTaken")
    wait_for(lambda: all(pod["metadata"].get("deletionTimestamp") for pod in runs.pods()), "old pods are deleted")
    assert {pod["metadata"]["uid"] for pod in runs.pods()} == {pod["metadata"]["uid"] for pod in old}
    driver.behave(runs.namespace, remove=True)
    runs.wait_until_gone(old)
    runs.until("Running", seconds=90)
    uid = runs.get()["metadata"]["uid"]
    assert {pod["metadata"]["ownerReferences"][0]["uid"] for pod in runs.wait_for_pods()} == {uid}
    assert runs.status()["failures"] == {"application": 0, "disruption": 0}
