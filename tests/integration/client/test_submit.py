"""`seele submit` against a real API server."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from seele_operator.cli import app
from seele_operator.client import submit
from tests.integration.client.client_runs import Body, Cluster, shared_run
from tests.support.spec_data import small_run
from tests.support.waiting import wait_for


def invalid(message: str, generation: int) -> list[Body]:
    return [
        {
            "type": "Valid",
            "status": "False",
            "reason": "Invalid",
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": "2026-11-22T10:00:00Z",
        }
    ]


def test_a_run_is_created_once_and_changed_when_the_file_does(cluster: Cluster) -> None:
    first = cluster.seele("submit", "-f", cluster.file())
    again = cluster.seele("submit", "-f", cluster.file())
    changed = cluster.seele("submit", "-f", cluster.file(training={"steps": 7}))

    said = [result.stdout.splitlines()[0] for result in (first, again, changed)]
    assert said == [f"small: {what} in namespace {cluster.namespace}" for what in ("created", "unchanged", "changed")]
    assert f"seele status small -w -n {cluster.namespace}" in first.stdout
    assert cluster.run()["spec"]["training"]["steps"] == 7
    assert {entry["manager"] for entry in cluster.run()["metadata"]["managedFields"]} == {"seele-cli"}


@pytest.mark.parametrize(
    ("trainer", "field"),
    [
        ({}, "spec.trainer.resources.limits: no GPU is requested"),
        ({"resources": {"limits": {"nvidia.com/gpu": "4"}}}, "spec.trainer.processesPerReplica: 1 of 4 nvidia.com/gpu"),
    ],
    ids=["none", "idle"],
)
def test_gpus_that_are_missing_or_idle_are_warned_about_before_the_answer(
    cluster: Cluster, trainer: Body, field: str
) -> None:
    result = cluster.seele("submit", "-f", cluster.file(trainer=trainer))

    assert result.exit_code == 0
    warnings = [f"warning: {field}", "warning: spec.rollout.resources.limits: no GPU is requested"]
    shown = [*result.stderr.splitlines(), *result.stdout.splitlines()]
    assert [line[: len(start)] for line, start in zip(shown, warnings, strict=False)] == warnings
    assert shown == result.output.splitlines()
    assert f"small: created in namespace {cluster.namespace}" in result.stdout
    assert cluster.run()["metadata"]["name"] == "small"


def test_a_field_that_leaves_the_file_leaves_the_run(cluster: Cluster) -> None:
    cluster.submit(training={"steps": 7, "seed": 3})
    cluster.submit(training={"steps": 7})

    # The API server fills in defaults.
    assert cluster.run()["spec"]["training"].get("seed", 0) == 0


def test_a_dry_run_changes_nothing(cluster: Cluster) -> None:
    result = cluster.seele("submit", "-f", cluster.file(), "--dry-run")

    assert result.exit_code == 0
    assert result.stdout == f"small: created in namespace {cluster.namespace} (dry run: nothing was changed)\n"
    assert cluster.api.list("seeleruns", cluster.namespace) == []


def test_a_bad_file_is_refused_before_anything_is_sent(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/none")
    path = cluster.file(hints={"targetAccuracy": 2})
    result = cluster.seele("submit", "-f", path)

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("spec.hints.targetAccuracy: 2 is not below 1")
    several = cluster.seele("submit", "-f", cluster.write(small_run()))
    assert several.stderr.startswith("spec.storage.run")


def test_the_namespace_of_the_file_counts_and_must_agree_with_the_option(cluster: Cluster) -> None:
    body = shared_run()
    body["metadata"]["namespace"] = cluster.namespace
    path = cluster.write(body)

    refused = CliRunner().invoke(app, ["submit", "-f", path, "-n", "other"])
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"metadata.namespace: {cluster.namespace} is not what -n says, other; leave one of them out\n"
    )
    result = CliRunner().invoke(app, ["submit", "-f", path])
    assert result.exit_code == 0
    assert f"seele logs small -f -n {cluster.namespace}" in result.stdout
    assert cluster.run()["metadata"]["namespace"] == cluster.namespace


def test_what_was_taken_out_of_a_cluster_can_be_submitted(cluster: Cluster) -> None:
    cluster.submit(training={"steps": 7})
    cluster.set_status("Running", step=3)
    taken = cluster.run()
    cluster.api.delete("seeleruns", "small", cluster.namespace)
    result = cluster.seele("submit", "-f", cluster.write(taken))

    assert result.exit_code == 0, result.stderr
    assert "status" not in cluster.run()


def test_a_run_that_is_over_is_not_started_again(cluster: Cluster) -> None:
    cluster.submit()
    cluster.set_status("Succeeded")
    changed = cluster.seele("submit", "-f", cluster.file(training={"steps": 7}))
    same = cluster.seele("submit", "-f", cluster.file())

    assert (changed.exit_code, changed.stdout) == (2, "")
    assert "\nsmall: has succeeded, and a run that has ended does not start again; delete it" in changed.stderr
    assert cluster.run()["spec"].get("training", {}).get("steps") != 7
    assert (same.exit_code, same.stdout.splitlines()[0]) == (0, f"small: unchanged in namespace {cluster.namespace}")
    assert cluster.seele("submit", "-f", cluster.file(), "--wait").exit_code == 0


def test_waiting_ends_as_the_run_does(cluster: Cluster, operator: Callable[[Callable[[], None]], None]) -> None:
    def train() -> None:
        wait_for(lambda: cluster.api.get("seeleruns", "small", cluster.namespace), "the run is there")
        cluster.set_status("Running", step=1, steps=2)
        cluster.set_status("Failed", message="OOMKilled: too much")

    operator(train)
    result = cluster.seele("submit", "-f", cluster.file(), "--wait")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "small: Failed  step 1/2  OOMKilled: too much"


def test_waiting_for_a_run_that_can_never_start_ends(
    cluster: Cluster, operator: Callable[[Callable[[], None]], None]
) -> None:
    def refuse() -> None:
        wait_for(lambda: cluster.api.get("seeleruns", "small", cluster.namespace), "the run is there")
        cluster.set_status("Pending", conditions=invalid("spec.x: is wrong", 1))

    operator(refuse)
    result = cluster.seele("submit", "-f", cluster.file(), "--wait")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "small: the operator rejects the spec: spec.x: is wrong"


def test_the_operators_rejection_of_a_change_is_printed(
    cluster: Cluster, operator: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submit, "OPERATOR_ANSWER_SECONDS", 20.0)
    cluster.submit()
    cluster.set_status("Running")

    def refuse() -> None:
        wait_for(lambda: cluster.run()["metadata"]["generation"] == 2, "the run is changed")
        cluster.set_status("Running", conditions=invalid("spec.training.steps: cannot change", 2))

    operator(refuse)
    result = cluster.seele("submit", "-f", cluster.file(training={"steps": 7}))

    assert result.exit_code == 0
    assert "The operator rejects the change: spec.training.steps: cannot change" in result.stdout


def test_a_run_that_is_submitted_suspended_says_how_to_start_it(cluster: Cluster) -> None:
    result = cluster.seele("submit", "-f", cluster.file(runPolicy={"suspend": True}))

    assert f"It is suspended; to start it: seele resume small -n {cluster.namespace}" in result.stdout
