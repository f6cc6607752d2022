"""The chart's schema: it has the values of values.yaml, and refuses others by name."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.helm_chart import CHART, as_file, helm
from tools.chart_values import described_values

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
Schema = dict[str, Any]

FREE = {
    *("global", "podSecurityContext", "securityContext", "affinity.*", "resources.claims[]"),
    *("extraVolumes[]", "extraEnv[].valueFrom", "extraEnvFrom[].configMapRef", "extraEnvFrom[].secretRef"),
    *("networkPolicy.from[].*", "topologySpreadConstraints[].labelSelector"),
}
"""Kubernetes' own objects, which are copied unchanged and checked by the API server."""


def resolved(schema: Schema) -> Schema:
    name = schema.get("$ref", "").removeprefix("#/definitions/")
    return SCHEMA["definitions"][name] if name else schema


def nodes(schema: Schema, place: str = "") -> Iterator[tuple[str, Schema]]:
    """A schema and all schemas in it, with their paths."""
    schema = resolved(schema)
    yield place, schema
    for name, inside in schema.get("properties", {}).items():
        yield from nodes(inside, f"{place}.{name}".lstrip("."))
    if "items" in schema:
        yield from nodes(schema["items"], f"{place}[]")


def is_free(place: str) -> bool:
    return bool({place, f"{place.rpartition('.')[0]}.*"} & FREE)


def test_no_object_accepts_unknown_keys() -> None:
    objects = {place: schema for place, schema in nodes(SCHEMA) if schema.get("type") == "object"}
    loose = {place for place, schema in objects.items() if "additionalProperties" not in schema}

    assert {place for place in loose if not is_free(place)} == set()
    assert len(objects) - len(loose) > 20


def test_it_has_the_values_of_the_chart_and_no_others() -> None:
    def keys(values: Any, schema: Schema, place: str) -> list[str]:
        known = resolved(schema).get("properties")
        if not isinstance(values, dict) or not known or is_free(place):
            return []
        # Defaults need not have all fields of a Kubernetes object.
        differ = set(values) - set(known) if described(place) else set(values) ^ set(known) - {"global"}
        inside = [
            keys(value, known[key], f"{place}.{key}".lstrip(".")) for key, value in values.items() if key in known
        ]
        return [f"{place}.{key}".lstrip(".") for key in differ] + [key for one in inside for key in one]

    whole = {value.key for value in described_values((CHART / "values.yaml").read_text())}

    def described(place: str) -> bool:
        return any(place == key or place.startswith(f"{key}.") for key in whole)

    assert keys(VALUES, SCHEMA, "") == []


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt value": ({"replica": 2}, "replica"),
    "a misspelt value of a group": ({"image": {"repo": "x"}}, "repo"),
    "a misspelt boolean": ({"monitoring": {"podMonitor": {"enable": True}}}, "enable"),
    "a group that does not exist": ({"monitoring": {"podMonitors": {}}}, "podMonitors"),
    "a misspelt resource": ({"resources": {"limit": {"cpu": 1}}}, "limit"),
    "a misspelt field of a probe": ({"probes": {"liveness": {"period": 3}}}, "period"),
    "a misspelt field of a toleration": ({"tolerations": [{"keys": "gpu"}]}, "keys"),
    "a misspelt kind of affinity": ({"affinity": {"podAntiAfinity": {}}}, "podAntiAfinity"),
    "a misspelt field of a variable": ({"extraEnv": [{"name": "A", "values": "1"}]}, "values"),
    "a misspelt field of a rule": ({"monitoring": {"serviceMonitor": {"relabelings": [{"source": []}]}}}, "source"),
    "a misspelt peer": ({"networkPolicy": {"from": [{"podSelectors": {}}]}}, "podSelectors"),
    "a string for a number": ({"replicas": "two"}, "replicas"),
    "too many operators": ({"replicas": 100}, "replicas"),
    "no workers": ({"workers": 0}, "workers"),
    "a string for a boolean": ({"crds": {"install": "yes"}}, "install"),
    "an unknown log format": ({"logFormat": "yaml"}, "logFormat"),
    "an unknown pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "a tag in the repository": ({"image": {"repository": "ghcr.io/seele-dev/seele-operator:0.1.0"}}, "repository"),
    "a digest in the tag": ({"image": {"tag": "sha256:0123"}}, "tag"),
    "half a digest": ({"image": {"digest": "sha256:0123"}}, "digest"),
    "a lease that expires at once": ({"leaderElection": {"leaseDurationSeconds": 1}}, "leaseDurationSeconds"),
    "an invalid namespace": ({"watchNamespaces": ["Research"]}, "watchNamespaces"),
    "a namespace twice": ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
    "namespaces as one string": ({"watchNamespaces": "a,b"}, "watchNamespaces"),
    "a label that is not a string": ({"commonLabels": {"gpu": True}}, "gpu"),
    "a label with a space": ({"podLabels": {"team": "re search"}}, "team"),
    "an annotation that is not a string": ({"podAnnotations": {"port": 9401}}, "port"),
    "an interval without a unit": ({"monitoring": {"podMonitor": {"interval": "30"}}}, "interval"),
    "a secret as a plain name": ({"imagePullSecrets": ["registry"]}, "imagePullSecrets"),
    "a volume that the chart has already": ({"extraVolumes": [{"name": "tmp", "emptyDir": {}}]}, "extraVolumes"),
    "an invalid percentage": ({"podDisruptionBudget": {"maxUnavailable": "half"}}, "maxUnavailable"),
    "an invalid port": ({"service": {"port": 70000}}, "port"),
    "a name with capitals": ({"nameOverride": "Seele"}, "nameOverride"),
    "an invalid name for a Service": ({"fullnameOverride": "1a.b"}, "fullnameOverride"),
    "a name that is too long": ({"fullnameOverride": "a" * 41}, "fullnameOverride"),
    "memory with an invalid unit": ({"resources": {"limits": {"memory": "1GB"}}}, "memory"),
    "no image": ({"image": None}, "image"),
    "no probes": ({"probes": None}, "probes"),
    "no monitoring": ({"monitoring": None}, "monitoring"),
    "no Prometheus rules": ({"monitoring": {"prometheusRule": None}}, "prometheusRule"),
    "no number of workers": ({"workers": None}, "workers"),
    "no log format": ({"logFormat": None}, "logFormat"),
    "no number of operators": ({"replicas": None}, "replicas"),
    "no repository": ({"image": {"repository": None}}, "repository"),
    "no lease duration": ({"leaderElection": {"leaseDurationSeconds": None}}, "leaseDurationSeconds"),
    "no setting for keeping runs": ({"crds": {"keep": None}}, "keep"),
    "no limit of a budget": ({"podDisruptionBudget": {"maxUnavailable": None}}, "maxUnavailable"),
    "no port": ({"service": {"port": None}}, "port"),
    "no label of dashboards": ({"monitoring": {"dashboards": {"label": None}}}, "label"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_value_is_refused_by_name(case: str, tmp_path: Path) -> None:
    values, name = BAD[case]
    refused = helm("template", "x", CHART, "--values", as_file(values, tmp_path))

    assert refused.returncode != 0
    assert "schema" in refused.stderr
    assert name in refused.stderr


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "several operators without leader election": (
        {"replicas": 2, "leaderElection": {"enabled": False}},
        "replicas: several operators need leader election: set leaderElection.enabled to true, or replicas to 1",
    ),
    "no account": (
        {"serviceAccount": {"create": False}},
        "serviceAccount.name: name the operator's account, or set serviceAccount.create to true",
    ),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_values_that_contradict_each_other_are_refused(case: str, tmp_path: Path) -> None:
    values, message = IMPOSSIBLE[case]
    refused = helm("template", "x", CHART, "--values", as_file(values, tmp_path))

    assert refused.returncode != 0
    assert message in refused.stderr


def test_an_old_server_is_refused() -> None:
    refused = helm("template", "x", CHART, "--kube-version", "v1.19.16")

    assert refused.returncode != 0
    assert ">=1.20" in refused.stderr


def test_globals_of_a_parent_chart_are_accepted(tmp_path: Path) -> None:
    assert helm("template", "x", CHART, "--values", as_file({"global": {"cluster": "lab"}}, tmp_path)).returncode == 0
