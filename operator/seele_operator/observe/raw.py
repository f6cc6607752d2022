"""Reading raw pods: whatever is missing, or is not what Kubernetes says it is, reads as absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any


def mapping(value: object, *path: str) -> Mapping[str, Any]:
    """The mapping found in `value` below the keys of `path`; empty where there is none."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def entries(value: Mapping[str, Any], key: str) -> Iterator[Mapping[str, Any]]:
    """The mappings in the list under `key`."""
    found = value.get(key)
    return (entry for entry in found if isinstance(entry, Mapping)) if isinstance(found, list) else iter(())


def text(value: Mapping[str, Any], key: str) -> str:
    """The text under `key`; empty where there is none."""
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
    """The pod condition of one type; empty where there is none."""
    found = entries(mapping(body, "status"), "conditions")
    return next((entry for entry in found if entry.get("type") == kind), {})


def deletion_asked(body: Mapping[str, Any]) -> datetime | None:
    """When a pod's deletion was asked for; None for one that is to stay."""
    metadata = mapping(body, "metadata")
    if not metadata.get("deletionTimestamp"):
        return None
    # The API server writes the end of the grace period, from which the request's time follows.
    latest = moment(metadata, "deletionTimestamp") or datetime.fromtimestamp(0, UTC)
    try:
        return latest - timedelta(seconds=number(metadata, "deletionGracePeriodSeconds") or 0)
    except OverflowError:
        return latest
