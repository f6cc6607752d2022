"""`seele submit`, `status`, `suspend`, `resume` and `delete` against a real API server, with no operator but the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from control_plane import ControlPlane
from kubernetes_api import KubernetesApi
from remote_bodies import RUNNING, pod_body
from seele_operator.cli import app
from seele_operator.remote import following, submit
from spec_data import small_run
from waiting import wait_for

pytestmark = pytest.mark.integration

Body = dict[str, Any]
POD_SPEC: Body = {"containers": [{"name": "trainer", "image": "seele:1"}], "automountServiceAccountToken": False}


def shared_run(**spec: object) -> Body:
    """A small run that a cluster can carry out: its pods share a folder."""
    body = small_run()
    body["spec"] |= {"storage": {"run": {"hostPath": {"path": "/data/small"}}}, **spec}
    return body


class Cluster:
    """A namespace of the control plane, as the user of `seele` and as the operator see it."""

    def __init__(self, plane: ControlPlane, folder: Path):
        self.plane = plane
        self.api: KubernetesApi = plane.admin
        self.namespace = plane.namespace()
        self.folder = folder

    def seele(self, *words: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(app, [*words, "-n", self.namespace], input=answer)

    def file(self, **spec: object) -> str:
        return self.write(shared_run(**spec))

    def write(self, body: Body) -> str:
        path = self.folder / "run.yaml"
        path.write_text(yaml.safe_dump(body))
        return str(path)

    def submit(self, **spec: object) -> Body:
        result = self.seele("submit", "-f", self.file(**spec))
        assert result.exit_code == 0, result.stderr
        return self.run()

    def run(self, name: str = "small") -> Body:
        found = self.api.get("seeleruns", name, self.namespace)
        assert found is not None
        return found

    def set_status(self, phase: str, **more: object) -> None:
        """What the operator would write about the run as it is now."""
        generation = self.run()["metadata"]["generation"]
        status = {"phase": phase, "observedGeneration": generation, **more}
        self.api.patch("seeleruns", "small", self.namespace, {"status": status}, "status")


@pytest.fixture
def cluster(control_plane: ControlPlane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.admin_kubeconfig))
    monkeypatch.setattr(following, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(submit, "OPERATOR_ANSWER_SECONDS", 0.0)
    return Cluster(control_plane, tmp_path)


@pytest.fixture
def operator(cluster: Cluster) -> Iterator[Callable[[Callable[[], None]], None]]:
    """Does something while a command waits."""
    threads: list[threading.Thread] = []

    def start(act: Callable[[], None]) -> None:
        threads.append(threading.Thread(target=act, daemon=True))
        threads[-1].start()

    yield start
    for thread in threads:
        thread.join(30)


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
    assert changed.stderr.startswith("small: has succeeded, and a run that is over does not start again; delete it")
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
    assert result.stdout.splitlines()[-1] == "small: the operator refuses the spec: spec.x: is wrong"


def test_the_operators_refusal_of_a_change_is_told(
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
    assert "The operator does not follow the change: spec.training.steps: cannot change" in result.stdout


def test_a_run_that_is_submitted_suspended_says_how_to_start_it(cluster: Cluster) -> None:
    result = cluster.seele("submit", "-f", cluster.file(runPolicy={"suspend": True}))

    assert f"It is suspended; to start it: seele resume small -n {cluster.namespace}" in result.stdout


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


def test_suspend_and_resume_say_what_happens(cluster: Cluster) -> None:
    cluster.submit()
    cluster.set_status("Running", lastCheckpoint={"step": 40, "path": "checkpoints/step-40"})

    assert cluster.seele("resume", "small").stdout == "small: is not suspended\n"
    suspended = cluster.seele("suspend", "small")
    assert suspended.exit_code == 0
    assert "as far as 30 s suffice" in suspended.stdout
    assert cluster.run()["spec"]["runPolicy"]["suspend"] is True
    assert cluster.seele("suspend", "small").stdout == "small: its suspension was asked for already\n"
    cluster.set_status("Suspended")
    assert cluster.seele("suspend", "small").stdout == "small: is suspended already\n"
    assert cluster.seele("resume", "small").stdout.startswith("small: goes on from step 40; ")
    assert cluster.run()["spec"]["runPolicy"]["suspend"] is False


def test_suspend_and_resume_can_wait(cluster: Cluster, operator: Callable[[Callable[[], None]], None]) -> None:
    cluster.submit()
    cluster.set_status("Running")

    def follow(suspend: bool, phase: str) -> None:
        wait_for(lambda: cluster.run()["spec"].get("runPolicy", {}).get("suspend") is suspend, "the run is changed")
        cluster.set_status(phase)

    operator(lambda: follow(True, "Suspended"))
    assert cluster.seele("suspend", "small", "--wait").exit_code == 0
    assert cluster.run()["status"]["phase"] == "Suspended"
    operator(lambda: follow(False, "Running"))
    assert cluster.seele("resume", "small", "--wait").exit_code == 0
    operator(lambda: follow(True, "Succeeded"))
    assert cluster.seele("suspend", "small", "--wait").exit_code == 1


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

    monkeypatch.setattr("seele_operator.cli_cluster.questioner", lambda: typer.confirm)
    no = cluster.seele("delete", "small", answer="n\n")
    assert no.exit_code == 1
    assert "keeps /data/small on the node with the run's folder" in no.stdout
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
    result = cluster.seele("delete", "small", "--yes", "--wait")

    assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "small: gone")
    assert cluster.api.get("pods", "small-trainer-0", cluster.namespace) is None
    assert gone_first == [True]


def test_a_namespace_that_does_not_exist_is_named(cluster: Cluster) -> None:
    result = CliRunner().invoke(app, ["submit", "-f", cluster.file(), "-n", "nowhere"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("namespace nowhere does not exist; create it (kubectl create namespace nowhere)")


def test_what_is_forbidden_is_named_and_the_rest_is_shown(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.submit()
    namespace = cluster.namespace
    rules = [{"apiGroups": ["seele.dev"], "resources": ["seeleruns"], "verbs": ["get", "list"]}]
    meta = {"name": "reader", "namespace": namespace}
    cluster.api.create({"kind": "ServiceAccount", "metadata": meta}, namespace)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": meta}
    cluster.api.create({**role, "kind": "Role", "rules": rules}, namespace)
    subjects = [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}]
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    cluster.api.create({**role, "kind": "RoleBinding", "subjects": subjects, "roleRef": reference}, namespace)
    token = cluster.plane.service_account_token("reader", namespace)
    monkeypatch.setenv("KUBECONFIG", str(cluster.plane.kubeconfig("reader", token, namespace)))
    wait_for(lambda: CliRunner().invoke(app, ["status"]).exit_code == 0, "the role is in force")

    detail = CliRunner().invoke(app, ["status", "small"])
    assert detail.exit_code == 0
    assert f"forbidden: list pods in namespace {namespace}: " in detail.stdout
    assert f"forbidden: list events in namespace {namespace}: " in detail.stdout
    for command, verb in (("suspend", "patch"), ("delete", "delete")):
        words = [command, "small", *(["--yes"] if command == "delete" else [])]
        refused = CliRunner().invoke(app, words)
        assert (refused.exit_code, len(refused.stderr.splitlines())) == (1, 1)
        assert refused.stderr.startswith(f"forbidden: {verb} seeleruns in namespace {namespace}: ")
    everywhere = CliRunner().invoke(app, ["status", "-A"])
    assert everywhere.stderr.startswith("forbidden: list seeleruns in all namespaces: ")


def test_credentials_that_do_not_count_are_one_line(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.plane.kubeconfig("nobody", "not-a-token")))
    result = cluster.seele("status")

    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "does not accept the credentials" in result.stderr


def test_a_certificate_that_is_not_trusted_is_one_line(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_load(cluster.plane.admin_kubeconfig.read_text())
    del content["clusters"][0]["cluster"]["certificate-authority"]
    path = cluster.folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    result = cluster.seele("status")

    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "has a certificate that is not trusted" in result.stderr
    content["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = True
    path.write_text(yaml.safe_dump(content))
    assert cluster.seele("status").output == f"no runs in namespace {cluster.namespace}\n"


def test_logs_of_a_run_without_pods_say_so(cluster: Cluster) -> None:
    cluster.submit()
    result = cluster.seele("logs", "small")

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "small: not taken up yet: it has no pods now; with --follow their logs are waited for\n"
