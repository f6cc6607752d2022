"""Messages about a run: Events from the operator, as manifests, and refusals of child objects from the API server."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal


@dataclass(frozen=True)
class RunEvent:
    """A Kubernetes Event about the run."""

    type: Literal["Normal", "Warning"]
    reason: str
    """A stable word: Started, Running, Restarting, RolloutReplaced, Suspended, Resumed, Succeeded, Failed, Refused, ..."""
    message: str


@dataclass(frozen=True)
class Refusal:
    """The API server's refusal of the latest attempt to create a child object."""

    reason: Literal["QuotaExceeded", "Forbidden", "Invalid", "NameTaken", "GangUnavailable", "Error"]
    message: str
    """The API server's message, after the kind and name of the object."""


REPORTER = "seele-operator"
MAX_MESSAGE_LENGTH = 1024
"""Characters; the API server rejects longer messages."""


def event_name(run: Mapping[str, Any], event: RunEvent) -> str:
    """A name that is the same for the same event about the same run, so that repeats can be counted."""
    metadata = run["metadata"]
    identity = "\0".join((metadata["uid"], event.type, event.reason, event.message))
    return f"{metadata['name']}.{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


def event_manifest(run: Mapping[str, Any], event: RunEvent, now: datetime, instance: str) -> dict[str, Any]:
    """The first event for `event`, reported by the operator named `instance`."""
    metadata = run["metadata"]
    moment = timestamp(now)
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(run, event), "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": run["apiVersion"],
            "kind": run["kind"],
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": shortened(event.message),
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "reportingInstance": instance,
    }


def shortened(message: str) -> str:
    """The message, cut to what fits into an event."""
    return message if len(message) <= MAX_MESSAGE_LENGTH else f"{message[: MAX_MESSAGE_LENGTH - 1]}…"


def timestamp(now: datetime) -> str:
    """The time in the format of events, to the second."""
    return now.strftime("%Y-%m-%dT%H:%M:%SZ")
