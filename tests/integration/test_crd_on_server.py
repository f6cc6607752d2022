"""The CustomResourceDefinition on a real API server: what it stores, refuses and shows."""

import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from seele_operator.api.status import RunStatus, patch_between, read_status
from seele_operator.validation.crd import crd
from seele_operator.validation.load import parse_run
from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane
from tests.support.kubernetes_api import ApiError, Body
from tests.support.spec_data import CEL_CASES, full_run, good_run, patched, small_run
from tests.support.status_data import FULL_STATUS
from tests.support.waiting import wait_for

RUNS = "seeleruns"
DEFINITION = "seeleruns.seele.dev"
MANIFESTS = REPOSITORY / "manifests"


@pytest.fixture(scope="module")
def namespace(control_plane: ControlPlane) -> Iterator[str]:
    """A namespace of a cluster whose definition has the rules in CEL, unlike in other tests."""
    namespace = control_plane.namespace()
    redefine(control_plane, namespace, cel=True)
    yield namespace
    redefine(control_plane, namespace, cel=False)


def redefine(plane: ControlPlane, namespace: str, cel: bool) -> None:
    """Replace the definition, and wait until the server uses it."""
    path = plane.admin.path("customresourcedefinitions", DEFINITION, None)
    stored = plane.admin.request("GET", path)
    plane.admin.request("PUT", path, {**stored, "spec": crd(cel=cel)["spec"]})
    enforced = cel and plane.version >= (1, 25)

    def in_use() -> bool:
        try:
            body = patched(good_run(), {"metadata": {"name": "probe"}, "spec": {"hints": {"rounds": 1}}})
            plane.admin.request("POST", plane.admin.path(RUNS, None, namespace), body, dryRun="All")
        except ApiError:
            return enforced
        return not enforced

    wait_for(in_use, f"the server uses the definition {'with' if cel else 'without'} CEL")


def created(plane: ControlPlane, namespace: str, body: Body, name: str) -> Body:
    metadata = {key: value for key, value in body["metadata"].items() if key != "namespace"}
    return plane.admin.create({**body, "metadata": {**metadata, "name": name}}, namespace)


def refusal(plane: ControlPlane, namespace: str, body: Body) -> str:
    with pytest.raises(ApiError) as refused:
        created(plane, namespace, body, body["metadata"].get("name", "refused"))
    assert (refused.value.code, refused.value.reason) == (422, "Invalid")
    return refused.value.message


def unnumbered(message: str) -> str:
    """A message without the indexes of lists, which old servers do not report."""
    return re.sub(r"\[\d*\]", "", message)


def test_the_definition_is_served_and_structural(control_plane: ControlPlane) -> None:
    stored = control_plane.admin.get("customresourcedefinitions", DEFINITION)

    assert stored is not None
    conditions = {condition["type"]: condition["status"] for condition in stored["status"]["conditions"]}
    assert conditions["Established"] == conditions["NamesAccepted"] == "True"
    assert conditions.get("NonStructuralSchema", "False") == "False"
    assert stored["spec"].get("preserveUnknownFields", False) is False


@pytest.mark.parametrize("manifest", ["crd.yaml", "crd-without-cel.yaml"])
@pytest.mark.parametrize("way", [[], ["--server-side", "--force-conflicts"]], ids=["client", "server"])
def test_kubectl_applies_the_manifest(control_plane: ControlPlane, manifest: str, way: list[str]) -> None:
    kubectl = [control_plane.binaries / "kubectl", f"--kubeconfig={control_plane.admin_kubeconfig}"]
    applied = subprocess.run(
        [*kubectl, "apply", "--dry-run=server", *way, "-f", MANIFESTS / manifest], capture_output=True, text=True
    )

    if manifest == "crd.yaml" and control_plane.version < (1, 23):
        # This is why the other manifest exists.
        assert "x-kubernetes-validations" in applied.stderr
    else:
        assert applied.returncode == 0, applied.stderr
        assert DEFINITION in applied.stdout


def test_a_run_with_every_field_is_stored_as_it_was_written(control_plane: ControlPlane, namespace: str) -> None:
    stored = created(control_plane, namespace, full_run(), "full")

    assert lost(full_run()["spec"], stored["spec"], "spec") == []
    assert parse_run(stored).spec == parse_run(full_run()).spec
    resolved = full_run() | {"spec": parse_run(full_run()).spec.model_dump(mode="json", by_alias=True)}
    assert parse_run(created(control_plane, namespace, resolved, "resolved")).spec == parse_run(full_run()).spec


def lost(written: Any, stored: Any, path: str) -> list[str]:
    """The places where the stored value differs from the written one."""
    if isinstance(written, dict) and isinstance(stored, dict):
        return [place for key, value in written.items() for place in lost(value, stored.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(stored, list) and len(written) == len(stored):
        return [place for pair in zip(written, stored, strict=True) for place in lost(*pair, f"{path}[]")]
    return [] if written == stored else [path]


def test_the_server_fills_in_what_python_fills_in(control_plane: ControlPlane, namespace: str) -> None:
    body = good_run()
    stored = created(control_plane, namespace, body, "defaults")

    assert stored["spec"]["hints"]["targetAccuracy"] == 0.5
    assert parse_run(stored).spec == parse_run(body).spec


def test_an_unknown_field_is_not_stored(control_plane: ControlPlane, namespace: str) -> None:
    stored = created(control_plane, namespace, patched(good_run(), {"spec": {"trainng": {"steps": 3}}}), "unknown")

    assert "trainng" not in stored["spec"]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "accuracy of one": ({"hints": {"targetAccuracy": 1}}, "spec.hints.targetAccuracy"),
    "no rounds": ({"hints": {"rounds": 0}}, "spec.hints.rounds"),
    "a seed of 33 bits": ({"training": {"seed": 2**32}}, "spec.training.seed"),
    "one beta": ({"training": {"adamBetas": [0.9]}}, "spec.training.adamBetas"),
    "text for a count": ({"training": {"steps": "many"}}, "spec.training.steps"),
    "fraction for a count": ({"trainer": {"replicas": 1.5}}, "spec.trainer.replicas"),
    "no trainers": ({"trainer": {"replicas": 0}}, "spec.trainer.replicas"),
    "unknown strategy": ({"training": {"strategy": "ppo"}}, "spec.training.strategy"),
    "unknown policy": ({"runPolicy": {"cleanPodPolicy": "Some"}}, "spec.runPolicy.cleanPodPolicy"),
    "model without a name": ({"model": {"name": ""}}, "spec.model.name"),
    "three betas": ({"training": {"adamBetas": [0.9, 0.9, 0.9]}}, "spec.training.adamBetas"),
    "a mapping for a list": ({"trainer": {"env": {"A": "1"}}}, "spec.trainer.env"),
    "a variable without a name": ({"rollout": {"env": [{"value": "1"}]}}, "spec.rollout.env.name"),
    "a fraction of memory": ({"storage": {"sharedMemory": 1.5}}, "spec.storage.sharedMemory"),
    "negative deadline": ({"runPolicy": {"startDeadlineSeconds": -1}}, "spec.runPolicy.startDeadlineSeconds"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_refused_with_its_field(control_plane: ControlPlane, namespace: str, case: str) -> None:
    spec, field = BAD[case]

    assert field in unnumbered(refusal(control_plane, namespace, patched(good_run(), {"spec": spec})))


def test_a_run_without_a_model_is_refused(control_plane: ControlPlane, namespace: str) -> None:
    message = refusal(control_plane, namespace, patched(good_run(), {"spec": {"model": "<absent>"}}))

    assert "spec.model" in message
    assert "Required" in message


# The rules in CEL


@pytest.mark.parametrize("case", CEL_CASES)
def test_a_rule_in_cel_is_enforced_where_the_server_has_it(
    control_plane: ControlPlane, namespace: str, case: str
) -> None:
    body, field = CEL_CASES[case]
    if control_plane.version < (1, 25):
        # The server ignores the rules, and the operator refuses the run.
        assert created(control_plane, namespace, body, f"cel-{list(CEL_CASES).index(case)}")["spec"]
        return
    assert field in unnumbered(refusal(control_plane, namespace, body))


# The status


def test_every_field_of_a_status_is_stored(control_plane: ControlPlane, namespace: str) -> None:
    created(control_plane, namespace, good_run(), "status")
    patch = {"status": patch_between({}, FULL_STATUS.to_api())}
    control_plane.admin.patch(RUNS, "status", namespace, patch, "status")

    stored = control_plane.admin.get(RUNS, "status", namespace)
    assert stored is not None
    assert stored["status"] == FULL_STATUS.to_api()
    assert read_status(stored) == FULL_STATUS


def test_a_status_is_changed_by_a_merge_patch(control_plane: ControlPlane, namespace: str) -> None:
    created(control_plane, namespace, good_run(), "changes")
    before: dict[str, Any] = {}
    for status in (FULL_STATUS, RunStatus(phase="Succeeded", message="done"), RunStatus(), FULL_STATUS):
        patch = {"status": patch_between(before, status.to_api())}
        before = control_plane.admin.patch(RUNS, "changes", namespace, patch, "status")["status"]
        assert before == status.to_api()


def test_a_status_may_be_incomplete(control_plane: ControlPlane, namespace: str) -> None:
    created(control_plane, namespace, good_run(), "small-status")
    patch = {"status": {"phase": "Pending", "lastFailure": {"reason": "Error"}}}

    stored = control_plane.admin.patch(RUNS, "small-status", namespace, patch, "status")
    assert stored["status"] == patch["status"]


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"phase": "Lost"}, "status.phase"),
        ({"startTime": "yesterday"}, "status.startTime"),
        ({"step": "12"}, "status.step"),
        ({"conditions": [{"type": "Valid"}]}, "status.conditions.status"),
    ],
)
def test_a_bad_status_is_refused(
    control_plane: ControlPlane, namespace: str, status: dict[str, Any], field: str
) -> None:
    name = f"bad-status-{abs(hash(field)) % 10**8}"
    created(control_plane, namespace, good_run(), name)
    with pytest.raises(ApiError) as refused:
        control_plane.admin.patch(RUNS, name, namespace, {"status": status}, "status")

    assert refused.value.code == 422
    assert field in unnumbered(refused.value.message)


def test_users_do_not_write_the_status_with_the_spec(control_plane: ControlPlane, namespace: str) -> None:
    stored = created(control_plane, namespace, {**good_run(), "status": {"phase": "Succeeded"}}, "own-status")

    assert "status" not in stored


def test_the_columns_of_kubectl_get(control_plane: ControlPlane, namespace: str) -> None:
    created(control_plane, namespace, good_run(), "table")
    control_plane.admin.patch(RUNS, "table", namespace, {"status": FULL_STATUS.to_api()}, "status")
    table = control_plane.admin.request(
        "GET",
        control_plane.admin.path(RUNS, "table", namespace),
        accept="application/json;as=Table;v=v1;g=meta.k8s.io",
    )

    shown = {column["name"] for column in table["columnDefinitions"] if column["priority"] == 0}
    cells = dict(zip((column["name"] for column in table["columnDefinitions"]), table["rows"][0]["cells"], strict=True))
    assert shown == {"Name", "Phase", "Step", "Accuracy", "Hint", "Age"}
    assert [cells[name] for name in ("Name", "Phase", "Step", "Attempt")] == ["table", "Restarting", 12, 3]
    assert (float(cells["Accuracy"]), float(cells["Hint"])) == (0.5, 1)
    assert cells["Message"] == FULL_STATUS.message


def test_a_small_run_is_accepted(control_plane: ControlPlane, namespace: str) -> None:
    body = patched(small_run(), {"spec": {"storage": {"run": {"hostPath": {"path": "/srv/runs"}}}}})

    assert created(control_plane, namespace, body, "small")["spec"]["rollout"]["engine"] == "vllm"
