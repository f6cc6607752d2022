"""The definitions of PodGroups, for test clusters without a gang scheduler."""

from typing import Any


def pod_group_crd(api_version: str = "scheduling.volcano.sh/v1beta1") -> dict[str, Any]:
    """A PodGroup with the fields that plans set; others are dropped."""
    group, version = api_version.split("/")
    spec = {"type": "object", "properties": {"minMember": {"type": "integer"}, "queue": {"type": "string"}}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"podgroups.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": "PodGroup", "plural": "podgroups", "singular": "podgroup", "listKind": "PodGroupList"},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }
