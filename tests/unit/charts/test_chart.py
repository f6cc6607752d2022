"""What the chart renders. SEELE_UPDATE_GOLDEN=1 updates the golden files."""

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from seele_operator.api.yaml_files import yaml_text
from seele_operator.validation.rules import VALIDATIONS
from tests.support import REPOSITORY
from tests.support.helm_chart import CHART, NEW, OLD, RELEASE, Body, as_file, helm, helm_done, objects, one, rendered
from tools.chart_values import described_values

DATA = REPOSITORY / "tests" / "unit" / "data" / "chart"
CASES = {"defaults": NEW, "namespaces": OLD, "everything": NEW}
"""Cases of values, with the version of Kubernetes that they are rendered for."""
SAME_FOR_ALL = ("app.kubernetes.io/managed-by", "app.kubernetes.io/version", "helm.sh/chart")
RULES, DASHBOARDS = CHART / "files" / "rules.yaml", CHART / "files" / "dashboards"


def values_of(case: str) -> Path:
    return DATA / f"{case}.values.yaml"


def readable(bodies: list[Body]) -> str:
    """Objects as in golden files: sorted, without labels that all objects have, and with files replaced by their names."""
    for body in bodies:
        if body["kind"] == "PrometheusRule":
            body["spec"] = "the text of files/rules.yaml"
        if body["kind"] == "ConfigMap":
            body["data"] = {key: f"the text of {key.removeprefix('seele-')}" for key in body["data"]}
        for label in SAME_FOR_ALL:
            if body["metadata"]["labels"].get(label) != "ours":
                body["metadata"]["labels"].pop(label, None)
    return yaml_text(*sorted(bodies, key=lambda body: (body["kind"], body["metadata"]["name"], str(body["metadata"]))))


@pytest.mark.parametrize("case", CASES)
def test_values_become_the_golden_objects(case: str) -> None:
    golden = DATA / f"{case}.golden.yaml"
    got = readable(rendered(values_of(case), kubernetes=CASES[case]))
    if os.environ.get("SEELE_UPDATE_GOLDEN"):
        golden.write_text(got)

    assert got == golden.read_text()


# Tested elsewhere: another value would hide the effects of the others.
ELSEWHERE = {
    *("watchNamespaces", "crds.keep", "rbac.create", "serviceAccount.create"),
    *("leaderElection.enabled", "podDisruptionBudget.enabled"),
}


def test_one_case_changes_every_value() -> None:
    given = yaml.safe_load(values_of("everything").read_text())
    unchanged = set()
    for value in described_values((CHART / "values.yaml").read_text()):
        found: Any = given
        for part in value.key.split("."):
            found = found.get(part, {})
        if found in ({}, [], value.default):
            unchanged.add(value.key)

    assert unchanged <= ELSEWHERE


@pytest.mark.parametrize("case", CASES)
def test_helm_lint_has_no_complaints(case: str) -> None:
    linted = helm("lint", "--strict", CHART, "--values", values_of(case))

    assert linted.returncode == 0, linted.stdout
    assert "WARNING" not in linted.stdout
    assert "ERROR" not in linted.stdout


def test_a_packaged_chart_has_the_files_that_the_checkout_links_to(tmp_path: Path) -> None:
    helm_done("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.glob("*.tgz")
    rendering = ("template", RELEASE, "--values", values_of("everything"), "--kube-version", NEW)

    assert helm_done(*rendering, package) == helm_done(*rendering, CHART)


def test_chart_and_manifests_have_the_version_of_the_package() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]

    assert chart["appVersion"] == version
    image = f"ghcr.io/seele-dev/seele-operator:{version}"
    for deployment in (one(rendered(), "Deployment"), one(objects(manifest("operator.yaml")), "Deployment")):
        assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == image


def manifest(name: str) -> str:
    return (REPOSITORY / "manifests" / name).read_text()


# The definition of SeeleRun


@pytest.mark.parametrize(
    ("kubernetes", "cel"),
    [("v1.20.2", False), ("v1.24.17", False), ("v1.25.0", True), ("v1.33.2-gke.1043000", True), ("v2.0.0", True)],
)
def test_the_definition_has_cel_rules_if_the_server_supports_them(kubernetes: str, cel: bool) -> None:
    body = one(rendered(kubernetes=kubernetes), "CustomResourceDefinition")
    (file,) = objects((CHART / "files" / ("crd.yaml" if cel else "crd-without-cel.yaml")).read_text())

    assert body["spec"] == file["spec"]
    assert body["metadata"]["name"] == file["metadata"]["name"]
    assert (VALIDATIONS in str(body)) == cel


@pytest.mark.parametrize("keep", [True, False])
def test_the_definition_is_kept_if_configured(tmp_path: Path, keep: bool) -> None:
    body = one(rendered(as_file({"crds": {"keep": keep}}, tmp_path)), "CustomResourceDefinition")

    assert ("helm.sh/resource-policy" in body["metadata"].get("annotations", {})) == keep


@pytest.mark.parametrize(
    ("kubernetes", "version"), [("v1.20.15", "policy/v1beta1"), ("v1.21.0-eks-8d2", "policy/v1"), (NEW, "policy/v1")]
)
def test_the_disruption_budget_has_a_version_that_the_server_supports(
    kubernetes: str, version: str, tmp_path: Path
) -> None:
    bodies = rendered(as_file({"replicas": 2}, tmp_path), kubernetes=kubernetes)

    assert one(bodies, "PodDisruptionBudget")["apiVersion"] == version


# Monitoring


def test_alerts_and_dashboards_are_those_of_the_files() -> None:
    bodies = rendered(values_of("everything"))

    assert one(bodies, "PrometheusRule")["spec"] == yaml.safe_load(RULES.read_text())
    maps = [body["data"] for body in bodies if body["kind"] == "ConfigMap"]
    held = {name: text for data in maps for name, text in data.items()}
    assert held == {f"seele-{path.name}": path.read_text() for path in DASHBOARDS.glob("*.json")}
    assert len(maps) == len(held) > 0


def test_without_helm_there_are_the_same_monitors(tmp_path: Path) -> None:
    switched_on = {"monitoring": {"serviceMonitor": {"enabled": True}, "podMonitor": {"enabled": True}}}
    bodies = rendered(as_file(switched_on, tmp_path))
    pods, services = one(bodies, "PodMonitor")["spec"], one(bodies, "ServiceMonitor")["spec"]
    (their_pods,) = objects(manifest("prometheus/podmonitor.yaml"))
    (their_services,) = objects(manifest("prometheus/servicemonitor.yaml"))

    for spec in (pods, their_pods["spec"]):
        spec["podMetricsEndpoints"].sort(key=lambda endpoint: endpoint["path"])
    assert pods == their_pods["spec"]
    assert services["endpoints"] == their_services["spec"]["endpoints"]
    assert services["selector"]["matchLabels"].items() >= their_services["spec"]["selector"]["matchLabels"].items()


def test_the_pod_monitor_is_limited_to_the_operators_namespaces(tmp_path: Path) -> None:
    values = as_file({"watchNamespaces": ["a", "b"], "monitoring": {"podMonitor": {"enabled": True}}}, tmp_path)

    assert one(rendered(values), "PodMonitor")["spec"]["namespaceSelector"] == {"matchNames": ["a", "b"]}


# Rights


def rules(bodies: list[Body], kind: str) -> list[Any]:
    return [body["rules"] for body in bodies if body["kind"] == kind]


def test_the_chart_grants_what_the_manifests_grant() -> None:
    bodies = rendered()
    cluster, users = objects(manifest("rbac.yaml")), objects(manifest("rbac-users.yaml"))

    assert rules(bodies, "Role") == rules(cluster, "Role")
    assert sorted(map(str, rules(bodies, "ClusterRole"))) == sorted(map(str, rules([*cluster, *users], "ClusterRole")))


def test_with_namespaces_it_grants_the_same_there_and_nothing_elsewhere() -> None:
    bodies = rendered(values_of("namespaces"), kubernetes=OLD)
    of_one = objects(manifest("rbac-namespaced.yaml"))

    assert not [body for body in bodies if body["kind"].startswith("Cluster")]
    for namespace in ("research", "teaching"):
        inside = [body for body in bodies if body["metadata"]["namespace"] == namespace]
        assert sorted(body["kind"] for body in inside) == ["Role", "RoleBinding"]
        assert one(inside, "Role")["rules"] == one(of_one, "Role", "seele-operator")["rules"]


def test_disabled_objects_are_not_rendered(tmp_path: Path) -> None:
    off = {"crds": {"install": False}, "rbac": {"create": False, "userRoles": False}}
    account = {"serviceAccount": {"create": False, "name": "theirs"}}
    bodies = rendered(as_file({**off, **account}, tmp_path))

    assert sorted(body["kind"] for body in bodies) == ["Deployment", "Service"]
    assert one(bodies, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == "theirs"


def test_null_removes_a_default(tmp_path: Path) -> None:
    values = {
        **dict.fromkeys(("commonLabels", "commonAnnotations", "podLabels", "podAnnotations", "resources")),
        "watchNamespaces": None,
        "probes": {"liveness": None},
        "podSecurityContext": {"runAsUser": None},
    }
    bodies = rendered(as_file(values, tmp_path))
    pod = one(bodies, "Deployment")["spec"]["template"]["spec"]

    assert one(bodies, "ClusterRoleBinding")["roleRef"]["name"] == "seele-operator"
    assert not {"livenessProbe", "resources"} & set(pod["containers"][0])
    assert "readinessProbe" in pod["containers"][0]
    assert "runAsUser" not in pod["securityContext"]
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_names_that_look_like_numbers_stay_strings(tmp_path: Path) -> None:
    values = {
        "nameOverride": "2024",
        "watchNamespaces": ["2025"],
        "serviceAccount": {"name": "1234"},
        **{"priorityClassName": "1", "runtimeClassName": "2"},
    }
    made = helm_done("template", "2024", CHART, "--namespace=2026", "--values", as_file(values, tmp_path))
    bodies = [body for body in objects(made) if body["kind"] != "CustomResourceDefinition"]

    pod = one(bodies, "Deployment")["spec"]["template"]["spec"]
    assert (pod["serviceAccountName"], pod["priorityClassName"], pod["runtimeClassName"]) == ("1234", "1", "2")
    assert {body["metadata"].get("namespace") for body in bodies} == {"2025", "2026", None}
    named = [body["metadata"] for body in bodies]
    named += [place for body in bodies for place in [body.get("roleRef", {}), *body.get("subjects", [])]]
    assert {type(place[key]) for place in named for key in ("name", "namespace") if key in place} == {str}
    selectors = [
        one(bodies, "Service")["spec"]["selector"],
        one(bodies, "Deployment")["spec"]["selector"]["matchLabels"],
    ]
    labels = [*selectors, *(body["metadata"]["labels"] for body in bodies)]
    assert {type(value) for found in labels for value in found.values()} == {str}


def test_without_leader_election_there_is_only_one_operator(tmp_path: Path) -> None:
    bodies = rendered(as_file({"leaderElection": {"enabled": False}}, tmp_path))
    deployment = one(bodies, "Deployment")["spec"]

    assert deployment["strategy"] == {"type": "Recreate"}
    assert "--no-leader-election" in deployment["template"]["spec"]["containers"][0]["args"]
    assert not rules(bodies, "Role")
