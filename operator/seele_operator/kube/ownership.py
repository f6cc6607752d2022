"""Who owns an existing object, and who owns its fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from seele_operator.api.seelerun import KIND
from seele_operator.plan import names
from seele_operator.plan.names import Manifest


def controller_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The owner reference of an object's controller; None if it has no controller."""
    owners = body["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def taken(manifest: Manifest, existing: Mapping[str, Any], run_uid: str) -> str | None:
    """Why the existing object must not be changed; None if it belongs to the run or is its orphan."""
    run = manifest["metadata"]["labels"][names.RUN_LABEL]
    metadata = existing["metadata"]
    controller = controller_of(existing)
    labelled = (metadata.get("labels") or {}).get(names.RUN_LABEL) == run
    ours = controller["uid"] == run_uid if controller is not None else labelled
    if ours and metadata.get("deletionTimestamp"):
        return "is being deleted; it is created again when it is gone"
    if ours:
        return None
    if controller is None:
        return f"exists, without the label {names.RUN_LABEL}={run} that would make it this run's"
    if controller["kind"] == KIND and controller["name"] == run:
        return f"is left over from an earlier {KIND} {run}, and should be gone soon"
    return f"exists, and belongs to {controller['kind']} {controller['name']}"


def applied_instead_of_created(existing: Mapping[str, Any], manager: str) -> list[dict[str, Any]] | None:
    """The object's managedFields, with `manager`'s created fields marked as applied; None if nothing has to change.

    The API server treats creating and applying as two owners, even under one name: a field that was created and is then
    missing from what is applied would otherwise stay.
    """
    entries: Sequence[dict[str, Any]] = existing["metadata"].get("managedFields") or []
    ours = [entry for entry in entries if entry.get("manager") == manager and not entry.get("subresource")]
    created = [entry for entry in ours if entry.get("operation") == "Update"]
    if not created:
        return None
    kept = [entry for entry in entries if entry not in created]
    if len(created) == len(ours):
        kept.append({**created[0], "operation": "Apply"})
    return kept
