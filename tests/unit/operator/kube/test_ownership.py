"""Who owns an existing object, and who owns its fields."""

from typing import Any

import pytest

from seele_operator.kube.cluster import applied_instead_of_created
from seele_operator.plan.names import controller_of, taken

RUN = {"seele.dev/run": "r"}
MANIFEST = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "r-config", "labels": RUN}}


def existing(labels: dict[str, str] | None, *owners: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": "r-config", "labels": labels, "ownerReferences": list(owners), **metadata}}


def owner(uid: str, kind: str = "SeeleRun", name: str = "r", *, controller: bool = True) -> dict[str, Any]:
    return {"kind": kind, "name": name, "uid": uid, "controller": controller}


OURS = [
    existing(RUN, owner("me")),
    existing(None, owner("me")),
    existing(RUN),
    existing(RUN, owner("x", "ConfigMap", "friend", controller=False)),
]


@pytest.mark.parametrize("body", OURS)
def test_the_runs_own_objects_and_its_orphans_may_be_changed(body: dict[str, Any]) -> None:
    assert taken(MANIFEST, body, "me") is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (existing(None), "without the label seele.dev/run=r"),
        (existing({"seele.dev/run": "another"}), "without the label seele.dev/run=r"),
        (existing(RUN, owner("x", name="another")), "belongs to SeeleRun another"),
        (existing(RUN, owner("x", "Deployment", "web")), "belongs to Deployment web"),
        (existing(RUN, owner("x")), "left over from an earlier SeeleRun r"),
        (existing(RUN, owner("me"), deletionTimestamp="2026-11-22T12:00:00Z"), "is being deleted"),
    ],
)
def test_objects_of_others_may_not_be_changed(body: dict[str, Any], words: str) -> None:
    assert words in (taken(MANIFEST, body, "me") or "")


def test_an_owner_need_not_be_the_controller() -> None:
    body = existing(RUN, owner("x", controller=False), owner("me"))
    assert controller_of(body) == owner("me")
    assert controller_of({"metadata": {}}) is None


def entry(manager: str, operation: str, **fields: Any) -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields}


def test_created_fields_become_applied_ones() -> None:
    others = [entry("kubectl", "Update", a={}), {**entry("seele-operator", "Update"), "subresource": "status"}]
    body = existing(RUN, managedFields=[entry("seele-operator", "Update", b={}), *others])
    assert applied_instead_of_created(body, "seele-operator") == [*others, entry("seele-operator", "Apply", b={})]


def test_applied_fields_are_kept() -> None:
    applied = entry("seele-operator", "Apply", b={})
    assert applied_instead_of_created(existing(RUN, managedFields=[applied]), "seele-operator") is None
    both = existing(RUN, managedFields=[entry("seele-operator", "Update", c={}), applied])
    assert applied_instead_of_created(both, "seele-operator") == [applied]
