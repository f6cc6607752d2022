"""Which cluster and namespace a command uses: as kubectl decides."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from seele_operator.kube import kubeconfig
from seele_operator.kube.errors import NoCluster
from seele_operator.kube.kubeconfig import ClusterAccess, find_cluster


def write(path: Path, *contexts: str, current: str | None = None, namespace: str | None = None) -> Path:
    """A kubeconfig whose contexts each have a cluster of the same name."""
    inner = {} if namespace is None else {"namespace": namespace}
    content: dict[str, Any] = {
        "clusters": [{"name": name, "cluster": {"server": f"http://{name}.{path.stem}:1"}} for name in contexts],
        "contexts": [{"name": name, "context": {"cluster": name, **inner}} for name in contexts],
    }
    path.write_text(yaml.safe_dump(content | ({"current-context": current} if current else {})))
    return path


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def place(access: ClusterAccess) -> tuple[str, str]:
    return access.configuration.host, access.namespace


def test_the_file_in_the_home_folder_is_found(home: Path) -> None:
    (home / ".kube").mkdir()
    write(home / ".kube" / "config", "a", current="a")

    assert place(find_cluster()) == ("http://a.config:1", "default")
    assert find_cluster().cluster == "http://a.config:1 (context a)"


def test_of_several_files_the_first_with_a_setting_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(home / "first", "a", namespace="one")
    second = write(home / "second", "a", "b", current="a", namespace="two")
    third = write(home / "third", "c", current="c")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join(map(str, (first, home / "absent", second, third))))

    assert place(find_cluster()) == ("http://a.first:1", "one")
    assert place(find_cluster(context="b")) == ("http://b.second:1", "two")
    assert place(find_cluster(context="c")) == ("http://c.third:1", "default")


def test_the_option_comes_before_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = write(home / "mine", "a", current="a"), write(home / "other", "b", current="b")
    monkeypatch.setenv("KUBECONFIG", str(other))

    assert place(find_cluster(str(mine))) == ("http://a.mine:1", "default")


def test_a_pod_uses_its_service_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kubernetes.config import incluster_config

    for name, content in (("token", "secret"), ("ca.crt", "certificate"), ("namespace", "mine\n")):
        (home / name).write_text(content)
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(home / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(home / "ca.crt"))
    monkeypatch.setattr(kubeconfig, "SERVICE_ACCOUNT", home)
    for name, value in (("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")):
        monkeypatch.setenv(name, value)
    # The client reads the environment when it is imported.
    monkeypatch.setattr(incluster_config.InClusterConfigLoader.__init__, "__defaults__", (True, os.environ))

    access = find_cluster()
    assert place(access) == ("https://10.0.0.1:443", "mine")
    assert access.configuration.api_key["BearerToken"] == "bearer secret"


def test_a_plugin_gives_the_token_and_may_ask_its_user(
    home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plugin = home / "plugin"
    api = "client.authentication.k8s.io/v1"
    credential = f'{{"apiVersion": "{api}", "kind": "ExecCredential", "status": {{"token": "fresh"}}}}'
    plugin.write_text(f"#!/bin/sh\necho 'open https://login.example' >&2\necho '{credential}'\n")
    plugin.chmod(0o755)
    path = write(home / "file", "a", current="a")
    content = yaml.safe_load(path.read_text())
    content["contexts"][0]["context"]["user"] = "u"
    content["users"] = [{"name": "u", "user": {"exec": {"apiVersion": api, "command": str(plugin)}}}]
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with Path(os.devnull).open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        access = find_cluster(str(path))

    assert access.configuration.api_key["BearerToken"] == "Bearer fresh"
    assert "open https://login.example" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": "prodd"}, "--context: prodd is in no kubeconfig; did you mean prod?"),
        ({"context": "zzz"}, "--context: zzz is in no kubeconfig; use one of prod, test"),
        ({"kubeconfig": "/none"}, "--kubeconfig: /none: no such file; give the path of a kubeconfig"),
        ({}, "kubeconfig: no current context; give --context, one of prod, test"),
    ],
)
def test_what_does_not_exist_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], said: str
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(write(home / "file", "prod", "test")))

    with pytest.raises(NoCluster) as caught:
        find_cluster(**options)
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not YAML"),
        ("- a", "is not a kubeconfig"),
        ("", "names no cluster"),
        ("current-context: gone", "the current context gone does not exist; the kubeconfig has no contexts"),
        ("{current-context: a, contexts: [{name: a, context: {cluster: x}}]}", "context a cannot be used"),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: x}}], "
            "clusters: [{name: x, cluster: {server: 'https://x', certificate-authority: /none}}]}",
            "File does not exist: /none",
        ),
        (
            "{current-context: a, contexts: [{name: a, context: {cluster: x}}], "
            "clusters: [{name: x, cluster: {server: 'https://x', certificate-authority-data: x}}]}",
            "context a cannot be used",
        ),
        ("{current-context: a, contexts: [{name: a, context: nothing}]}", "context a cannot be used"),
        ("{current-context: a, contexts: [{name: a}], clusters: 3, users: 4}", "context a cannot be used"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(home: Path, content: str, said: str) -> None:
    (home / "bad").write_text(content)

    with pytest.raises(NoCluster) as caught:
        find_cluster(str(home / "bad"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_configuration_the_places_that_were_searched_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NoCluster, match=r"no cluster configured: there is no ~/\.kube/config; set KUBECONFIG"):
        find_cluster()
    monkeypatch.setenv("KUBECONFIG", "/none")
    with pytest.raises(NoCluster, match="KUBECONFIG=/none does not exist"):
        find_cluster()
