"""`seele status`, `suspend`, `resume` and `delete` against a real API server."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_operator.client.runs_api import RunsApi
from tests.integration.client.client_runs import POD_SPEC, Cluster
from tests.support.client_bodies import RUNNING, pod_body
from tests.support.waiting import wait_for


def test_status_shows_runs_and_one_in_detail(cluster: Cluster) -> None:
    assert cluster.seele("status").stdout == f"no runs in namespace {cluster.namespace}\n"
    cluster.submit(training={"steps": 60})
    cluster.set_status("Running", attempt=1, step=12, message="training", accuracy=0.5)
    uid = cluster.run()["metadata"]["uid"]
    pod = pod_body("trainer", 0, run="small")
    pod["metadata"]["ownerReferences"] = [
        {"apiVersion": "seele.dev/v1alpha1", "kind": "SeeleRun", "name": "small", "uid": uid, "controller": True}
    ]
    pod["spec"] = POD_SPEC
    del pod["status"]
    cluster.api.create(pod, cluster.namespace)
    reference = {"kind": "SeeleRun", "name": "small", "namespace": cluster.namespace}
    for name, about in (("mine", uid), ("other", "00000000-0000-0000-0000-000000000000")):
        event = {
            "kind": "Event",
            "metadata": {"name": name},
            "involvedObject": {**reference, "uid": about},
            "reason": f"Started-{name}",
            "message": "attempt 1",
            "type": "Normal",
        }
        cluster.api.create(event, cluster.namespace)

    header, row = cluster.seele("status").stdout.splitlines()
    assert row.split()[:4] == ["small", "Running", "12/60", "50.0%"]
    everywhere = CliRunner().invoke(app, ["status", "-A"]).stdout
    assert [cluster.namespace, "small"] in [line.split()[:2] for line in everywhere.splitlines()]
    detail = cluster.seele("status", "small").stdout
    assert f"small in namespace {cluster.namespace}: Running\ntraining\n" in detail
    assert "small-trainer-0   NotYetScheduled" in detail
    assert "Started-mine" in detail
    assert "Started-other" not in detail
    assert header.split()[0] == "NAME"


def test_status_gives_objects_to_programs(cluster: Cluster) -> None:
    cluster.submit()

    one = json.loads(cluster.seele("status", "small", "-o", "json").stdout)
    assert one["metadata"]["uid"] == cluster.run()["metadata"]["uid"]
    assert "managedFields" not in one["metadata"]
    many = yaml.safe_load(cluster.seele("status", "-o", "yaml").stdout)
    assert [item["metadata"]["name"] for item in many["items"]] == ["small"]


def test_watching_without_a_terminal_prints_each_change_until_the_end(
    cluster: Cluster, operator: Callable[[Callable[[], None]], None]
) -> None:
    cluster.submit()
    cluster.set_status("Running", step=1, steps=2)
    operator(lambda: cluster.set_status("Succeeded", step=2, message="done"))
    result = cluster.seele("status", "small", "--watch")

    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == "small: Succeeded  step 2/2  done"


SAVED = datetime.now(UTC) - timedelta(hours=12.5)
TRAINING = {
    "attemptRunningTime": SAVED.isoformat(),
    "step": 43,
    "stopSeconds": 250.0,
    "lastCheckpoint": {"step": 40, "path": "checkpoints/step-40", "time": SAVED.isoformat()},
}
AT_STAKE = (
    "saving may take 4 min 10 s; pods are killed after 30 min 00 s (runPolicy.terminationGracePeriodSeconds)",
    "step 40 is saved, 12h ago, and 3 finished steps are not; what is newer is lost if they are killed before it is saved",
)


def test_suspend_and_resume_say_what_happens(cluster: Cluster) -> None:
    cluster.submit()
    cluster.set_status("Running", **TRAINING)

    assert cluster.seele("resume", "small").stdout == "small: is not suspended\n"
    suspended = cluster.seele("suspend", "small")
    assert suspended.exit_code == 0
    assert suspended.stdout.splitlines()[:3] == [
        "small: is being suspended; its trainers save the last finished step first",
        *(f"small: {line}" for line in AT_STAKE),
    ]
    assert cluster.run()["spec"]["runPolicy"]["suspend"] is True
    assert cluster.seele("suspend", "small").stdout == "small: is already being suspended\n"
    cluster.set_status("Suspended")
    assert cluster.seele("suspend", "small").stdout == "small: is already suspended\n"
    assert cluster.seele("resume", "small").stdout.startswith("small: resumes from step 40; ")
    assert cluster.run()["spec"]["runPolicy"]["suspend"] is False


def test_suspend_and_resume_can_wait(
    cluster: Cluster, operator: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.submit()
    cluster.set_status("Running", **TRAINING)
    looks, look = [], RunsApi.run

    async def counted(api: RunsApi, name: str) -> Any:
        looks.append(name)
        return await look(api, name)

    monkeypatch.setattr(RunsApi, "run", counted)

    def follow(suspend: bool, phase: str, **status: Any) -> None:
        wait_for(lambda: cluster.run()["spec"].get("runPolicy", {}).get("suspend") is suspend, "the run is changed")
        cluster.set_status(phase, **status)

    def stop() -> None:
        follow(True, "Suspended", message="2 pods still stopping", conditions=[progressing("StoppingPods")])
        looks.clear()
        wait_for(lambda: len(looks) > 2, "the command has seen that pods are still stopping")
        saved = {**TRAINING["lastCheckpoint"], "step": 43, "time": datetime.now(UTC).isoformat()}
        cluster.set_status("Suspended", lastCheckpoint=saved, conditions=[progressing("Suspended")])

    operator(stop)
    suspended = cluster.seele("suspend", "small", "--wait")
    assert suspended.exit_code == 0
    # It has waited for the save.
    assert "small: Suspended  step 43/400  2 pods still stopping" in suspended.stdout
    assert suspended.stdout.splitlines()[-1].startswith("small: its pods are gone; step 43 is saved, ")
    assert "not" not in suspended.stdout.splitlines()[-1]
    operator(lambda: follow(False, "Running"))
    assert cluster.seele("resume", "small", "--wait").exit_code == 0
    operator(lambda: follow(True, "Succeeded"))
    assert cluster.seele("suspend", "small", "--wait").exit_code == 1


def progressing(reason: str) -> dict[str, str]:
    return {
        "type": "Progressing",
        "status": "False",
        "reason": reason,
        "lastTransitionTime": datetime.now(UTC).isoformat(),
    }


@pytest.mark.parametrize("command", ["suspend", "resume"])
def test_a_run_that_is_over_has_nothing_to_suspend_or_resume(cluster: Cluster, command: str) -> None:
    cluster.submit()
    cluster.set_status("Failed")
    result = cluster.seele(command, "small")

    assert (result.exit_code, result.stderr) == (2, f"small: has failed; there is nothing to {command}\n")


def test_nothing_is_deleted_without_agreement(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.submit()
    refused = cluster.seele("delete", "small")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert f"seele delete small --yes -n {cluster.namespace}" in refused.stderr

    monkeypatch.setattr("seele_operator.client.commands.confirmation", lambda: typer.confirm)
    no = cluster.seele("delete", "small", answer="n\n")
    assert no.exit_code == 1
    assert "keeps /data/small on the node with the run's folder" in no.stdout
    assert "saved" not in no.stdout
    cluster.set_status("Running", **TRAINING)
    again = cluster.seele("delete", "small", answer="n\n")
    assert [line.strip() for line in again.stdout.splitlines()[1:3]] == list(AT_STAKE)
    assert cluster.run()
    assert cluster.seele("delete", "small", answer="y\n").exit_code == 0
    assert cluster.api.get("seeleruns", "small", cluster.namespace) is None


def test_no_run_is_deleted_where_one_of_them_is_missing(cluster: Cluster) -> None:
    cluster.submit()
    result = cluster.seele("delete", "small", "smal", "--yes")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"smal: no such run in namespace {cluster.namespace}; did you mean small?\n"
    assert cluster.run()


def test_deleting_can_wait_until_the_pods_are_gone(
    cluster: Cluster, operator: Callable[[Callable[[], None]], None]
) -> None:
    uid = cluster.submit()["metadata"]["uid"]
    pod = pod_body("trainer", 0, RUNNING, run="small")
    owner = {"apiVersion": "seele.dev/v1alpha1", "kind": "SeeleRun", "name": "small", "uid": uid, "controller": True}
    # A pod on a node goes when its kubelet says so: here, the test.
    pod["metadata"]["ownerReferences"] = [owner]
    pod["spec"] = {**POD_SPEC, "nodeName": "nowhere"}
    cluster.api.create(pod, cluster.namespace)
    gone_first: list[bool] = []

    def kubelet() -> None:
        def asked() -> bool:
            body = cluster.api.get("pods", "small-trainer-0", cluster.namespace)
            return body is not None and "deletionTimestamp" in body["metadata"]

        wait_for(asked, "the garbage collector deletes the pod")
        gone_first.append(cluster.api.get("seeleruns", "small", cluster.namespace) is None)
        cluster.api.delete("pods", "small-trainer-0", cluster.namespace, grace=0)

    operator(kubelet)
    cluster.set_status("Running", **TRAINING)
    result = cluster.seele("delete", "small", "--yes", "--wait")

    assert result.stdout.splitlines()[:2] == [f"small: {line}" for line in AT_STAKE]
    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "small: gone")
    assert cluster.api.get("pods", "small-trainer-0", cluster.namespace) is None
    assert gone_first == [True]
