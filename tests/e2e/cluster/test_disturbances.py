"""Disturbances of runs: memory limits, lost servers, a lost node, a killed operator, and suspension."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.e2e.cluster.applied_runs import ATTEMPT, IN_PROCESS, ClusterRun, attempts_running, processes_of
from tests.e2e.cluster.bystander import bystander
from tests.e2e.cluster.clusters import Cluster
from tests.support.spec_data import patched
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.disturbance, pytest.mark.timeout(1200), pytest.mark.usefixtures("own_node")]

Submit = Callable[[str, Mapping[str, Any]], ClusterRun]
LONG = 150
"""Steps of a run that is still in progress when its node is considered lost."""
LOST = [
    {"key": f"node.kubernetes.io/{taint}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 2}
    for taint in ("unreachable", "not-ready")
]


def test_a_trainer_over_its_memory_limit_is_reported(submit: Submit) -> None:
    run = submit(
        "hungry",
        patched(
            IN_PROCESS,
            {
                "trainer": {"resources": {"requests": {"memory": "200Mi"}, "limits": {"memory": "200Mi"}}},
                "runPolicy": {"backoffLimit": 0},
            },
        ),
    )
    failed = run.reach_phase("Failed", 240)

    failure = failed["lastFailure"]
    assert (failure["reason"], failure["exitCode"]) == ("OOMKilled", 137)
    assert (failure["class"], failure["pod"], failure["container"]) == ("application", "hungry-trainer-0", "trainer")
    assert "OOMKilled" in failed["message"]
    assert run.conditions()["Failed"] == "True"


def test_only_a_killed_rollout_server_is_replaced_and_gets_the_weights_again(submit: Submit) -> None:
    run = submit("served", {"training": {"steps": 12}, "evaluation": {"everySteps": 0, "benchmarks": []}})
    run.reach_step(3)
    trainer, server = run.pods("trainer")[0]["metadata"]["uid"], run.pods("rollout")[0]["metadata"]["uid"]
    run.kill("served-rollout-0")

    done = run.reach_phase("Succeeded", 600)

    assert (done["attempt"], done["restarts"], done["step"], done["policyVersion"]) == (1, 0, 12, 12)
    assert run.pods("trainer")[0]["metadata"]["uid"] == trainer
    assert [step["step"] for step in run.steps()] == list(range(1, 13))
    events = run.events()
    assert any(event["reason"] == "RolloutReplaced" for event in events), events
    assert server not in {pod["metadata"]["uid"] for pod in run.pods("rollout")}
    # The canary of every later step proves that the new server had the trainer's weights.
    assert max(step["canaryDifference"] for step in run.steps()) < 1e-3


def test_a_lost_node_that_comes_back_never_runs_two_attempts(submit: Submit, cluster: Cluster) -> None:
    assert cluster.node is not None
    spec = {"training": {"steps": LONG}, "checkpoints": {"everySteps": 10}, "scheduling": {"tolerations": LOST}}
    run = submit("lost", patched(IN_PROCESS, spec))
    run.reach_step(3)
    with bystander(cluster.api):
        cluster.node.kill_kubelet()
        try:
            lost = run.reach_phase("Restarting", 120)
            assert lost["lastFailure"]["class"] == "disruption"
            # The containers continue, since they cannot be stopped. A concurrent second attempt would corrupt the run.
            (pod,) = run.pods()
            assert "deletionTimestamp" in pod["metadata"]
            assert pod["metadata"]["labels"][ATTEMPT] == "1"
            assert attempts_running("lost") == {"1"}
        finally:
            cluster.node.start_kubelet()
        seen: list[set[str]] = []

        def second_attempt() -> bool:
            seen.append(attempts_running("lost"))
            return seen[-1] == {"2"}

        wait_for(second_attempt, run.describe, 180)
    assert {"1", "2"} not in seen
    done = run.reach_phase("Succeeded", 600)

    assert (done["attempt"], done["step"]) == (2, LONG)
    assert run.history.attempts_together() <= {0, 1}
    assert [step["step"] for step in run.steps()] == list(range(1, LONG + 1))


def test_an_operator_killed_during_a_restart_completes_it_later(submit: Submit, cluster: Cluster) -> None:
    run = submit("orphaned", patched(IN_PROCESS, {"trainer": {"replicas": 2}}))
    run.reach_step(3)
    run.kill("orphaned-trainer-1")
    run.reach("attempt 2 is written", lambda status: status["attempt"] == 2, 60)
    cluster.operator.kill()
    between = run.status()
    assert between["gang"] == "stopping"
    cluster.operator.start()

    done = run.reach_phase("Succeeded", 400)

    assert (done["attempt"], done["restarts"], done["step"]) == (2, 1, 12)
    assert run.history.attempts_together() <= {0, 1}


def test_a_suspended_run_uses_nothing_and_resumes_where_it_was(submit: Submit) -> None:
    run = submit("paused", patched(IN_PROCESS, {"checkpoints": {"everySteps": 1000}}))
    run.reach_step(3)
    run.patch({"runPolicy": {"suspend": True}})
    suspended = run.reach_phase("Suspended", 120)
    wait_for(lambda: not run.pods() and not list(processes_of("paused-trainer-0")), run.describe, 60)
    # When terminated, the trainer saved a checkpoint although none was due.
    saved = int((run.folder / "checkpoints" / "LATEST").read_text().removeprefix("step-"))
    assert saved >= 3
    assert suspended["step"] >= 3

    run.patch({"runPolicy": {"suspend": False}})
    done = run.reach_phase("Succeeded", 300)

    assert done["step"] == 12
    assert done["restarts"] == 0
    assert "Suspended" in run.history.phases
    assert [step["step"] for step in run.steps()] == list(range(1, 13))
