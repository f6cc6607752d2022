"""What is said about a run: by the operator as Events, and by the API server where it refuses a child object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RunEvent:
    """A Kubernetes Event about the run."""

    type: Literal["Normal", "Warning"]
    reason: str
    """Stable: Started, Running, Restarting, RolloutReplaced, Suspended, Resumed, Succeeded, Failed, Refused, ..."""
    message: str


@dataclass(frozen=True)
class Refusal:
    """The API server's refusal of the last attempt to make a child object."""

    reason: Literal["QuotaExceeded", "Forbidden", "Invalid", "NameTaken", "GangUnavailable", "Error"]
    message: str
    """In the API server's own words, with the object's kind and name in front."""
