"""What the server refuses, and what is not there yet, in one line each."""

import pytest
import yaml
from typer.testing import CliRunner

from seele_operator.cli import app
from tests.integration.client.client_runs import Cluster
from tests.support.waiting import wait_for


def test_a_namespace_that_does_not_exist_is_named(cluster: Cluster) -> None:
    result = CliRunner().invoke(app, ["submit", "-f", cluster.file(), "-n", "nowhere"])

    assert (result.exit_code, result.stdout) == (2, "")
    assert "\nnamespace nowhere does not exist; create it (kubectl create namespace nowhere)" in result.stderr


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
    monkeypatch.setenv("KUBECONFIG", str(cluster.plane.kubeconfig("unknown", "not-a-token")))
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
    assert (
        result.stderr
        == "small: not picked up by an operator yet: it has no pods now; use --follow to wait for their logs\n"
    )
