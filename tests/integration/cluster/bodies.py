"""Objects for these tests, and the refusal of a request."""

from datetime import UTC, datetime
from typing import Any

import pytest

from seele_operator.api.events import Refusal
from seele_operator.kube.errors import Refused
from seele_operator.plan.objects import owner_reference
from tests.support.spec_data import small_run

ACCOUNT = "seele-operator-cluster-api"
"""The service account of the client."""
NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
FOREIGN_UID = "00000000-0000-0000-0000-000000000000"

Body = dict[str, Any]


def run_body(name: str, namespace: str) -> Body:
    return {**small_run(), "metadata": {"name": name, "namespace": namespace}}


def owner(run: Body) -> Body:
    return owner_reference(run["metadata"]["name"], run["metadata"]["uid"])


def child(run: Body, kind: str, name: str, **rest: Any) -> Body:
    """An object of the run."""
    namespace = run["metadata"]["namespace"]
    labels = {"seele.dev/run": run["metadata"]["name"]}
    metadata = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner(run)]}
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata, **rest}


def without_owner(body: Body) -> Body:
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}}


def pod_of(run: Body, name: str = "r-trainer-0", **spec: Any) -> Body:
    containers = [{"name": "trainer", "image": "none", **spec.pop("container", {})}]
    spec = {"containers": containers, "automountServiceAccountToken": False, **spec}
    return child(run, "Pod", name, spec=spec)


def config_of(run: Body, **data: str) -> Body:
    return child(run, "ConfigMap", "r-config", data=data)


def uid(body: Body) -> str:
    return str(body["metadata"]["uid"])


async def refused(request: Any) -> Refusal:
    with pytest.raises(Refused) as error:
        await request
    return error.value.refusal
