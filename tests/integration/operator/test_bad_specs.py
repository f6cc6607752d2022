"""Invalid specs: refused in the words of `seele validate`, and each can be repaired and deleted."""

from typing import Any

import pytest
import yaml

from seele_operator.api.types import BadRunError
from seele_operator.validation.load import check_cluster, check_run, parse_run
from tests.support.cluster_runs import SECONDS, ClusterRuns, run_body
from tests.support.kubernetes_api import ApiError
from tests.support.spec_data import DATA, full_run, patched
from tests.support.waiting import wait_for

ONE_POD = {"trainer": {"replicas": 1}, "rollout": {"engine": "transformers"}}
AT_LEAST = 40
"""Bad specs that the schema accepts, so that the operator has to refuse them."""


def bad_specs() -> list[dict[str, Any]]:
    """The cases of `seele validate` in which only `spec` is wrong, and which JSON can express."""
    found = []
    for case in yaml.safe_load((DATA / "bad_specs.yaml").read_text()):
        if set(case["patch"]) != {"spec"} or not isinstance(case["patch"]["spec"], dict):
            continue
        spec = patched(full_run(), case["patch"])["spec"]
        if all(number not in yaml.safe_dump(spec) for number in (".nan", ".inf")):
            found.append(spec)
    return found


def problems(spec: dict[str, Any]) -> list[str]:
    """The problems that `seele validate` finds in a spec."""
    body = {**run_body("any"), "spec": spec}
    try:
        run = parse_run(body)
    except BadRunError as error:
        return error.problems
    return [*check_run(run), *check_cluster(run)]


def created_spec(runs: ClusterRuns, body: dict[str, Any]) -> dict[str, Any] | None:
    """The spec of a new run as the API server stores it, without unknown fields; None if the schema refuses it."""
    try:
        stored: dict[str, Any] = runs.api.create(body, runs.namespace)["spec"]
    except ApiError as error:
        if error.reason == "Invalid" and "spec." in error.message:
            return None
        raise
    return stored


def test_every_bad_spec_is_refused_repaired_and_deleted(runs: ClusterRuns) -> None:
    names: set[str] = set()
    for number, spec in enumerate(bad_specs()):
        name = f"bad-{number}"
        stored_spec = created_spec(runs, {**run_body(name), "spec": spec})
        if stored_spec is not None and problems(stored_spec):
            names.add(name)
        elif stored_spec is not None:
            runs.delete(name)
    assert len(names) >= AT_LEAST

    def stored() -> dict[str, dict[str, Any]]:
        bodies = runs.api.list("seeleruns", runs.namespace)
        return {body["metadata"]["name"]: body for body in bodies if body["metadata"]["name"] in names}

    def validity(body: dict[str, Any]) -> dict[str, Any]:
        conditions = body.get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == "Valid"), {})

    wait_for(lambda: all(validity(body) for body in stored().values()), "all are judged", 60)
    for name, body in stored().items():
        assert validity(body)["status"] == "False", name
        assert validity(body)["reason"] == "Invalid", name
        expected = problems(body["spec"])
        assert expected, name
        assert validity(body)["message"] == "; ".join(expected), name
        assert body["status"]["phase"] == "Pending", name
    assert not [pod for name in names for pod in runs.pods(name)]

    # Half of them are deleted, the others repaired first.
    order = sorted(names)
    for name in order[::2]:
        runs.delete(name)
    wait_for(lambda: not set(order[::2]) & set(stored()), "bad runs are deleted", SECONDS)
    for name in order[1::2]:
        body = stored()[name]
        good = {**body, "spec": run_body(name, ONE_POD)["spec"]}
        runs.api.request("PUT", runs.api.path("seeleruns", name, runs.namespace), good)
    wait_for(
        lambda: all(body["status"]["phase"] == "Running" for body in stored().values()),
        lambda: str({name: body["status"]["phase"] for name, body in stored().items()}),
        120,
    )
    assert all(validity(body)["status"] == "True" for body in stored().values())
    runs.api.request("DELETE", runs.api.path("seeleruns", None, runs.namespace))
    wait_for(lambda: not stored(), "repaired runs are deleted", SECONDS)
    wait_for(
        lambda: not runs.api.list("pods", runs.namespace),
        lambda: f"their pods are gone: {[pod['metadata'] for pod in runs.api.list('pods', runs.namespace)]}",
        60,
    )


@pytest.mark.parametrize(
    ("where", "template", "word"),
    [
        ("trainer", {"spec": {"containers": [{"name": "Not A Name", "image": "x"}]}}, "containers"),
        ("rollout", {"spec": {"tolerations": [{"operator": "Sometimes"}]}}, "tolerations"),
        ("rollout", {"spec": {"volumes": [{"name": "twice", "emptyDir": {}, "hostPath": {"path": "/x"}}]}}, "volumes"),
    ],
)
def test_a_pod_that_the_api_server_refuses_is_reported_and_can_be_repaired(
    runs: ClusterRuns, where: str, template: dict[str, Any], word: str
) -> None:
    runs.make(spec={where: {"podTemplate": template}})
    condition = wait_for(
        lambda: (found := runs.condition("Valid")).get("status") == "False" and found,
        lambda: f"refused\n{runs.story()}",
        SECONDS,
    )
    assert isinstance(condition, dict)
    assert word in condition["message"]
    runs.edit({where: {"podTemplate": None}})
    runs.until("Running", seconds=90)
    assert runs.condition("Valid")["status"] == "True"


def test_a_bad_edit_of_a_running_run_is_refused_and_can_be_reverted(runs: ClusterRuns) -> None:
    runs.running()
    before = {pod["metadata"]["uid"] for pod in runs.pods()}
    runs.edit({"training": {"problemsPerUpdate": 7}})
    condition = runs.until_condition("Valid", "False", "Invalid")
    assert "spec.training.problemsPerUpdate" in condition["message"]
    assert runs.phase() == "Running"
    runs.edit({"training": {"problemsPerUpdate": None}})
    runs.until_condition("Valid", "True", "Accepted")
    assert {pod["metadata"]["uid"] for pod in runs.pods()} == before
