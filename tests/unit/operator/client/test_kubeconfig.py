"""Which cluster and namespace a command uses: as kubectl decides."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from seele_operator.client import kubeconfig
from seele_operator.client.errors import BadInput
from seele_operator.client.kubeconfig import Target, connect

pytestmark = pytest.mark.unit


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
    monkeypatch.delenv("KUBECONFIG", raising=False)
    return tmp_path


def test_the_file_in_the_home_folder_is_found(home: Path) -> None:
    (home / ".kube").mkdir()
    write(home / ".kube" / "config", "a", current="a")

    connection = connect(Target(), {})
    assert (connection.api.configuration.host, connection.namespace) == ("http://a.config:1", "default")


def test_of_several_files_the_first_that_says_something_wins(home: Path) -> None:
    first = write(home / "first", "a", namespace="one")
    second = write(home / "second", "a", "b", current="a", namespace="two")
    third = write(home / "third", "c", current="c")
    environment = {"KUBECONFIG": os.pathsep.join(map(str, (first, home / "absent", second, third)))}

    connection = connect(Target(), environment)
    assert (connection.api.configuration.host, connection.namespace) == ("http://a.first:1", "one")
    assert connect(Target(context="b"), environment).api.configuration.host == "http://b.second:1"
    assert connect(Target(context="c"), environment).api.configuration.host == "http://c.third:1"


def test_the_option_comes_before_the_environment(home: Path) -> None:
    mine, other = write(home / "mine", "a", current="a"), write(home / "other", "b", current="b")

    connection = connect(Target(kubeconfig=str(mine)), {"KUBECONFIG": str(other)})
    assert connection.api.configuration.host == "http://a.mine:1"


def test_the_namespace_is_that_of_the_option_then_of_the_context(home: Path) -> None:
    path = write(home / "file", "a", current="a", namespace="team")

    assert connect(Target(kubeconfig=str(path))).namespace == "team"
    assert connect(Target(kubeconfig=str(path), namespace="own")).namespace == "own"


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

    connection = connect(Target())
    assert (connection.api.configuration.host, connection.namespace) == ("https://10.0.0.1:443", "mine")
    assert connection.api.configuration.api_key["BearerToken"] == "bearer secret"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (Target(context="prodd"), "--context: prodd is in no kubeconfig; did you mean prod?"),
        (Target(context="zzz"), "--context: zzz is in no kubeconfig; use one of prod, test"),
        (Target(kubeconfig="/none"), "--kubeconfig: /none: no such file; give the path of a kubeconfig"),
        (Target(), "kubeconfig: no current context; give --context, one of prod, test"),
    ],
)
def test_what_does_not_exist_is_one_line(home: Path, target: Target, said: str) -> None:
    path = write(home / "file", "prod", "test")

    with pytest.raises(BadInput) as caught:
        connect(target, {"KUBECONFIG": str(path)})
    assert str(caught.value) == said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "is not YAML"),
        ("- a", "is no kubeconfig"),
        ("", "names no cluster"),
        ("current-context: gone", "the current context gone does not exist; the kubeconfig has no contexts at all"),
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

    with pytest.raises(BadInput) as caught:
        connect(Target(), {"KUBECONFIG": str(home / "bad")})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_configuration_at_all_says_where_it_was_looked_for(home: Path) -> None:
    with pytest.raises(BadInput, match=r"no cluster to speak to: there is no ~/\.kube/config; set KUBECONFIG"):
        connect(Target(), {})
    with pytest.raises(BadInput, match="KUBECONFIG=/none does not exist"):
        connect(Target(), {"KUBECONFIG": "/none"})


def test_the_next_command_goes_to_the_same_cluster() -> None:
    target = Target(kubeconfig="my file", context="prod")

    assert target.command("status", "quick") == "seele status quick --kubeconfig 'my file' --context prod"
    assert Target().in_namespace("team", "default").command("status") == "seele status -n team"
    assert Target().in_namespace("default", "default").command("status") == "seele status"
    assert Target(namespace="default").in_namespace("default", "default").command("status") == "seele status -n default"
