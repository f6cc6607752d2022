"""What the API server's errors mean to the operator: one exception for each way to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seele_operator.api.notices import Refusal

LONGEST_MESSAGE = 1000
"""Characters of a refusal that are kept: a webhook may say anything, and it all goes into the status of the run."""
GANG_SCHEDULERS = {"scheduling.volcano.sh": "Volcano", "scheduling.x-k8s.io": "the coscheduling plugin"}
"""What serves PodGroups, by API group."""

TROUBLE_OF_ONE = (
    "failed calling webhook",
    "failed to call webhook",
    "No API token found for service account",
    "failed to create typed patch object",
)
"""Server errors that are about this object or its namespace alone, and no reason to leave all other runs alone."""


class ClusterError(Exception):
    """The API server did not do what it was asked to."""


class NoCluster(ClusterError):
    """Nothing says where the API server is, or what says so cannot be read."""


class ClusterUnavailable(ClusterError):
    """No answer, or one that means to try again: no connection, time-out, 401, 429, 5xx."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to wait; None where it did not say."""


class Conflict(ClusterError):
    """The object has changed since it was read (its resourceVersion or uid does not match): read it again."""


class AlreadyExists(ClusterError):
    """An object of this name exists."""


class Gone(ClusterError):
    """The object does not exist (any more)."""


class Expired(ClusterError):
    """The next page of a list has become too old: list anew."""


class NamespaceTerminating(ClusterError):
    """The namespace is being deleted, or is gone: nothing can be created in it."""


class NotLeading(ClusterError):
    """Nothing was sent: this operator may not write, because its lease is not valid."""


class Refused(ClusterError):
    """The API server understood the request and will not do it; as things are, it would be refused again."""

    def __init__(self, refusal: Refusal):
        super().__init__(refusal.message)
        self.refusal = refusal


@dataclass(frozen=True)
class Asked:
    """What a request was about."""

    api_version: str
    kind: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True)
class Answer:
    """What came back."""

    code: int
    body: Mapping[str, Any] = field(default_factory=dict)
    """The JSON object; empty where the answer was something else."""
    text: str = ""
    """The answer, where it was no JSON object."""
    retry_after: float | None = None

    @property
    def message(self) -> str:
        """The error in the server's words."""
        said = str(self.body.get("message") or self.text).strip() or f"HTTP status {self.code}"
        return said if len(said) <= LONGEST_MESSAGE else f"{said[: LONGEST_MESSAGE - 1]}…"


def error_of(asked: Asked, answer: Answer) -> ClusterError:
    """What an answer with a code of 300 or more means."""
    message, code = f"{asked}: {answer.message}", answer.code
    if _namespace_is_going(asked, answer):
        return NamespaceTerminating(message)
    if any(words in message for words in TROUBLE_OF_ONE):
        return Refused(Refusal("Error", message))
    if code == 404:
        return _missing(asked, answer)
    if code == 409:
        return AlreadyExists(message) if answer.body.get("reason") == "AlreadyExists" else Conflict(message)
    if code == 422 and _is_another(answer):
        return Conflict(message)
    if code == 410:
        return Expired(message)
    if code in (401, 408, 429) or (code >= 500 and code != 501):
        return ClusterUnavailable(message, _retry_after(answer))
    return Refused(_refusal(code, message))


def _refusal(code: int, message: str) -> Refusal:
    # "status unknown for quota" is said about a quota so new that nobody has counted yet.
    if code == 403 and ("exceeded quota" in message or "status unknown for quota" in message):
        return Refusal("QuotaExceeded", message)
    # A webhook may deny with any code; what it does most is to deny with 400 or 403.
    if code == 403 or "denied the request" in message:
        return Refusal("Forbidden", message)
    return Refusal("Invalid" if code in (400, 413, 422) else "Error", message)


def _missing(asked: Asked, answer: Answer) -> ClusterError:
    details = answer.body.get("details") or {}
    if details.get("name"):
        return Gone(f"{asked}: {answer.message}")
    # No object is named: it is the kind that is missing.
    group = asked.api_version.partition("/")[0]
    unknown = f"{asked}: this cluster does not serve the kind {asked.kind} of {asked.api_version}"
    if asked.kind == "PodGroup":
        scheduler = GANG_SCHEDULERS.get(group, f"what serves {group}")
        return Refused(
            Refusal("GangUnavailable", f"{unknown}; install {scheduler}, or set spec.scheduling.gang to none")
        )
    return Refused(Refusal("Error", unknown))


def _is_another(answer: Answer) -> bool:
    """Whether the object has another uid than the change was meant for, or got another controller meanwhile."""
    causes = (answer.body.get("details") or {}).get("causes") or []
    return any(cause.get("field") in ("metadata.uid", "metadata.ownerReferences") for cause in causes)


def _namespace_is_going(asked: Asked, answer: Answer) -> bool:
    details = answer.body.get("details") or {}
    if answer.code == 404:
        return details.get("kind") == "namespaces" and asked.kind != "Namespace"
    causes = details.get("causes") or []
    return answer.code in (403, 409) and (
        any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        or "because it is being terminated" in answer.message
    )


def _retry_after(answer: Answer) -> float | None:
    if answer.retry_after is not None:
        return answer.retry_after
    seconds = (answer.body.get("details") or {}).get("retryAfterSeconds")
    return float(seconds) if seconds is not None else None
