"""The rights of the chart's pods: the Pod Security Standard `restricted`, and stricter rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.helm_chart import Body, objects, one, rendered

pytestmark = pytest.mark.unit

ALLOWED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def by_helm() -> list[Body]:
    return rendered()


def without_helm() -> list[Body]:
    return objects((REPOSITORY / "manifests" / "operator.yaml").read_text())


@pytest.fixture(params=[by_helm, without_helm])
def bodies(request: pytest.FixtureRequest) -> list[Body]:
    made: list[Body] = request.param()
    return made


@pytest.fixture
def pod(bodies: list[Body]) -> dict[str, Any]:
    spec: dict[str, Any] = one(bodies, "Deployment")["spec"]["template"]["spec"]
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
    assert all(set(volume) - {"name"} <= ALLOWED_VOLUMES for volume in pod["volumes"])
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
    for account in (one(rendered(), "ServiceAccount"), one(rbac(), "ServiceAccount")):
        assert account["automountServiceAccountToken"] is False


def test_no_rule_has_a_wildcard_and_none_reads_secrets() -> None:
    rules = [rule for body in [*rendered(), *rbac()] for rule in body.get("rules", [])]

    assert len(rules) > 10
    for rule in rules:
        assert not {"*"} & {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
        assert "secrets" not in rule["resources"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])


def rbac() -> list[Body]:
    return objects(Path(REPOSITORY / "manifests" / "rbac.yaml").read_text())
