"""The security of the chart's objects, and so of the manifests, which another test compares with them."""

from typing import Any

import pytest

from tests.support.helm_chart import one, rendered


@pytest.fixture
def pod() -> dict[str, Any]:
    spec: dict[str, Any] = one(rendered(), "Deployment")["spec"]["template"]["spec"]
    return spec


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)


def test_the_pod_is_restricted(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not any("hostPort" in port for port in container["ports"])


def test_the_container_writes_only_to_tmp(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["volumeMounts"] == [{"name": "tmp", "mountPath": "/tmp"}]
    assert pod["volumes"] == [{"name": "tmp", "emptyDir": {}}]


def test_the_container_has_resources_and_probes(container: dict[str, Any]) -> None:
    assert {"cpu", "memory"} <= set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["startupProbe"]["httpGet"] == {"path": "/healthz", "port": "metrics"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
    assert ("metrics", 9401) in [(port["name"], port["containerPort"]) for port in container["ports"]]
    assert "--http-port=9401" in container["args"]


def test_the_token_is_not_mounted_automatically() -> None:
    assert one(rendered(), "ServiceAccount")["automountServiceAccountToken"] is False


def test_no_rule_has_a_wildcard_and_none_reads_secrets() -> None:
    rules = [rule for body in rendered() for rule in body.get("rules", [])]

    assert len(rules) > 10
    for rule in rules:
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "secrets" not in rule["resources"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
