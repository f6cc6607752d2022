"""Reading raw pods leniently: a field that is missing or has an unexpected type counts as absent."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any


def mapping(value: object, *path: str) -> Mapping[str, Any]:
    """The mapping found in `value` under the keys of `path`; empty if absent."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def entries(value: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """The mappings in the list under `key`."""
    found = value.get(key)
    return (entry for entry in found if isinstance(entry, Mapping)) if isinstance(found, list) else iter(())


def text(value: Mapping[str, Any], key: str) -> str:
    """The text under `key`; empty if absent."""
    found = value.get(key)
    return found if isinstance(found, str) else ""


def number(value: Mapping[str, Any], key: str) -> int | None:
    """The whole number under `key`."""
    found = value.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def moment(value: Mapping[str, Any], key: str) -> datetime | None:
    """The time under `key`."""
    try:
        found = datetime.fromisoformat(text(value, key))
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def condition(body: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The pod's condition of this type; empty if absent."""
    found = entries(mapping(body, "status"), "conditions")
    return next((entry for entry in found if entry.get("type") == kind), {})


def terminated(container_status: Mapping[str, Any]) -> Mapping[str, Any]:
    """How the container ended; empty while it waits or runs."""
    return mapping(container_status, "state", "terminated")


def deletion_requested(body: Mapping[str, Any]) -> datetime | None:
    """When the pod's deletion was requested; None if it was not."""
    metadata = mapping(body, "metadata")
    if not metadata.get("deletionTimestamp"):
        return None
    # The API server stores the end of the grace period.
    latest = moment(metadata, "deletionTimestamp") or datetime.fromtimestamp(0, UTC)
    try:
        return latest - timedelta(seconds=number(metadata, "deletionGracePeriodSeconds") or 0)
    except OverflowError:
        return latest
