"""The operator is killed or frozen, loses its API server or has a second instance: runs are not affected."""

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster_runs import ROLLOUTS, TRAINERS, ClusterRuns
from tests.support.control_plane import ControlPlane
from tests.support.operator_process import LEASE_SECONDS, OperatorProcess, grant
from tests.support.pods_driver import PodsDriver
from tests.support.waiting import wait_for

API_SERVER_DOWN_SECONDS = 30.0
TAKEOVER_SECONDS = LEASE_SECONDS + 10.0
"""The lease time, and the time in which a standby notices and lists everything on a busy machine."""
RANDOM_KILLS = 3


def created_once_each(runs: ClusterRuns, attempts: int) -> None:
    """Assert that no pod was created twice in any attempt."""
    expected = attempts * (TRAINERS + ROLLOUTS)
    wait_for(lambda: len(runs.history.created) >= expected, lambda: str(runs.history.created))
    assert len(runs.history.created) == expected, runs.history.created


def test_a_failure_while_it_was_down_is_handled(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess
) -> None:
    runs.running()
    operator.kill()
    driver.finish(runs.pod("trainer", 1), 1)
    operator.start()
    assert runs.restarted()["restarts"] == 1
    created_once_each(runs, 2)


def test_a_trainer_deleted_while_it_was_down_is_noticed(runs: ClusterRuns, operator: OperatorProcess) -> None:
    runs.running()
    operator.kill()
    lost = runs.pod("trainer", 1)
    runs.api.delete("pods", "run-trainer-1", runs.namespace)
    runs.wait_until_gone([lost])
    operator.start()
    status = runs.restarted()
    assert (status["lastFailure"]["class"], status["lastFailure"]["reason"]) == ("disruption", "PodDeleted")
    created_once_each(runs, 2)


def test_killed_when_only_the_next_attempts_number_was_written(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess
) -> None:
    runs.running()
    operator.kill()
    driver.finish(runs.pod("trainer", 1), 1)
    written = {
        "phase": "Restarting",
        "attempt": 2,
        "gang": "stopping",
        "restarts": 1,
        "failures": {"application": 1, "disruption": 0},
    }
    runs.api.patch("seeleruns", "run", runs.namespace, {"status": written}, "status")
    operator.start()
    assert runs.restarted()["restarts"] == 1
    created_once_each(runs, 2)


def test_killed_while_old_pods_are_stopping(runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess) -> None:
    runs.bring_to("Restarting")
    wait_for(lambda: all(pod["metadata"].get("deletionTimestamp") for pod in runs.pods()), "all are asked to stop")
    operator.kill()
    driver.behave(runs.namespace, remove=True)
    runs.wait_for_pods(0)
    operator.start()
    assert runs.restarted()["restarts"] == 1
    created_once_each(runs, 2)


@pytest.mark.parametrize("made", [0, 1, 2])
def test_killed_with_some_of_the_next_attempts_pods_created(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess, made: int
) -> None:
    runs.running()
    runs.limit_pods(made)
    driver.finish(runs.pod("trainer", 1), 1)
    runs.until_condition("Scheduled", "False", "QuotaExceeded")
    wait_for(lambda: len(runs.pods_of_attempt(2)) == made, runs.story)
    operator.kill()
    runs.limit_pods(None)
    operator.start()
    assert runs.restarted()["restarts"] == 1
    created_once_each(runs, 2)


def test_killed_again_and_again(runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess) -> None:
    chance = random.Random(7)
    runs.running(spec={"runPolicy": {"backoffLimit": 100}})
    for attempt in range(2, 2 + RANDOM_KILLS):
        driver.trainer(runs.pod("trainer")).at(attempt, lastCheckpointStep=attempt)
        runs.until("Running", step=attempt)
        driver.finish(runs.pod("trainer", 1), 1)
        time.sleep(chance.uniform(0.0, 0.3))  # a random moment
        operator.kill()
        operator.start()
        assert runs.restarted(attempt)["restarts"] == attempt - 1
    created_once_each(runs, 1 + RANDOM_KILLS)


def test_a_restart_of_the_operator_changes_nothing(runs: ClusterRuns, operator: OperatorProcess) -> None:
    runs.running()
    runs.driver.trainer(runs.pod("trainer")).at(1)
    runs.until("Running", step=1)
    before = runs.get()
    pods = {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in runs.pods()}
    assert operator.terminate() == 0
    operator.start()
    runs.running("later")  # by then the operator has handled the first run
    assert runs.get()["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
    assert {pod["metadata"]["name"]: pod["metadata"]["resourceVersion"] for pod in runs.pods()} == pods


def test_it_waits_for_its_api_server_and_then_continues(
    runs: ClusterRuns, driver: PodsDriver, operator: OperatorProcess, control_plane: ControlPlane
) -> None:
    runs.running()
    before = {pod["metadata"]["uid"] for pod in runs.pods()}
    # Otherwise it would take the test's silent nodes for lost.
    control_plane.stop_controller_manager()
    lines = len(operator.log_file.read_text().splitlines())
    control_plane.stop_api_server()
    try:
        end = time.monotonic() + API_SERVER_DOWN_SECONDS
        while time.monotonic() < end:
            assert operator.running, operator.log()
            assert operator.get("/healthz") is not None, operator.log()
            time.sleep(1.0)
    finally:
        control_plane.start_api_server()
        control_plane.start_controller_manager()
    # It logs the outage, but not every try.
    assert 1 <= len(operator.log_file.read_text().splitlines()) - lines < 60
    assert {pod["metadata"]["uid"] for pod in runs.pods()} == before
    driver.finish(runs.pod("trainer", 1), 1)
    runs.restarted(seconds=90)
    created_once_each(runs, 2)
    runs.running("later")


@pytest.fixture
def pair(
    operator: OperatorProcess, operator_kubeconfig: Path, tmp_path: Path
) -> Iterator[tuple[OperatorProcess, OperatorProcess]]:
    """A leader and a standby instead of the shared operator."""
    operator.kill()
    flags = (f"--lease-duration={LEASE_SECONDS}", "--lease-name=pair")
    with OperatorProcess(operator_kubeconfig, tmp_path / "first.log", *flags) as first:
        wait_for(lambda: first.leads, "the first leads")
        with OperatorProcess(operator_kubeconfig, tmp_path / "second.log", *flags) as second:
            assert not second.leads
            yield first, second


def test_the_standby_takes_over_from_a_killed_leader(
    runs: ClusterRuns, driver: PodsDriver, pair: tuple[OperatorProcess, OperatorProcess]
) -> None:
    first, second = pair
    runs.operator = second
    runs.bring_to("Restarting")
    first.kill()
    killed = time.monotonic()
    wait_for(lambda: second.leads, lambda: f"the second leads\n{second.log()}", TAKEOVER_SECONDS)
    assert time.monotonic() - killed < TAKEOVER_SECONDS
    driver.behave(runs.namespace, remove=True)
    assert runs.restarted()["restarts"] == 1
    runs.running("later")
    created_once_each(runs, 3)


def test_a_frozen_leader_does_not_act_when_it_wakes(
    runs: ClusterRuns, driver: PodsDriver, pair: tuple[OperatorProcess, OperatorProcess]
) -> None:
    first, second = pair
    runs.operator = second
    runs.running()
    first.freeze()
    wait_for(lambda: second.leads, lambda: f"the second leads\n{second.log()}", TAKEOVER_SECONDS)
    driver.finish(runs.pod("trainer", 1), 1)
    first.thaw()
    runs.restarted()
    # It exits, to restart as a standby.
    wait_for(lambda: not first.running, lambda: f"the first ends\n{first.log()}", TAKEOVER_SECONDS)
    created_once_each(runs, 2)
    assert runs.status()["restarts"] == 1


def test_a_leader_that_is_stopped_hands_over_at_once(
    runs: ClusterRuns, pair: tuple[OperatorProcess, OperatorProcess]
) -> None:
    first, second = pair
    runs.operator = second
    runs.running()
    assert first.terminate() == 0
    # Within the lease time, because the lease was released.
    wait_for(lambda: second.leads, lambda: f"the second leads\n{second.log()}", LEASE_SECONDS)
    runs.running("later")
    created_once_each(runs, 2)


def test_an_operator_of_some_namespaces_needs_no_other_permissions(
    runs: ClusterRuns, operator: OperatorProcess, control_plane: ControlPlane, tmp_path: Path
) -> None:
    operator.kill()
    theirs = control_plane.namespace()
    kubeconfig = grant(control_plane, "rbac-namespaced.yaml", [runs.namespace], account="seele-operator-few")
    flags = (f"--namespace={runs.namespace}", "--lease-name=few")
    with OperatorProcess(kubeconfig, tmp_path / "few.log", *flags) as few:
        runs.operator = few
        elsewhere = ClusterRuns(control_plane, runs.driver, few, theirs)
        elsewhere.make()
        runs.running()
        runs.driver.finish(runs.pod("trainer", 1), 1)
        runs.restarted()
        assert elsewhere.status() == {}
        elsewhere.close()
