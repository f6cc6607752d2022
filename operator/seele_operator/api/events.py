"""Messages about a run: Events from the operator, and refusals of child objects from the API server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
