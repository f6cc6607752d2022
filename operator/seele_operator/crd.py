"""The CustomResourceDefinition seeleruns.seele.dev."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from seele_operator.schema import PRESERVE, run_schema
from seele_operator.spec import API_VERSION, KIND

GROUP, VERSION = API_VERSION.split("/")
PLURAL = "seeleruns"

_COLUMNS: tuple[dict[str, Any], ...] = (
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase", "description": "Where the run stands."},
    {"name": "Step", "type": "integer", "jsonPath": ".status.step", "description": "Training steps done."},
    {"name": "Accuracy", "type": "number", "jsonPath": ".status.accuracy", "description": "Share of right rollouts."},
    {"name": "Hint", "type": "number", "jsonPath": ".status.hintRate", "description": "Mean hint rate."},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Time since creation."},
)


def crd() -> dict[str, Any]:
    """The definition as a plain dict, ready to be written as YAML or applied; needs Kubernetes 1.16 or later."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": "seelerun",
                "shortNames": ["srun"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": deepcopy(list(_COLUMNS)),
                    "schema": {"openAPIV3Schema": _schema()},
                }
            ],
        },
    }


def _schema() -> dict[str, Any]:
    schema = deepcopy(run_schema())
    # The API server checks these three itself and allows no schema of ours for metadata.
    schema["properties"]["apiVersion"] = {"type": "string", "description": "Version of this format."}
    schema["properties"]["kind"] = {"type": "string", "description": "Kind of object."}
    schema["properties"]["metadata"] = {"type": "object"}
    schema["properties"]["status"] = {
        "type": "object",
        "description": "Where the run stands; written by the operator.",
        PRESERVE: True,
    }
    schema["required"] = ["spec"]
    return schema
