"""The API server's errors as exceptions: one for each way of handling them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from seele_operator.api.events import Refusal

MAX_MESSAGE_LENGTH = 1000
"""Characters kept of a refusal: a webhook may return any text, and all of it goes into the status of the run."""
POD_GROUP_PROVIDERS = {"scheduling.volcano.sh": "Volcano", "scheduling.x-k8s.io": "the coscheduling plugin"}
"""What serves PodGroups, by API group."""

SINGLE_OBJECT_ERRORS = (
    "failed calling webhook",
    "failed to call webhook",
    "No API token found for service account",
    "failed to create typed patch object",
)
"""Server errors that concern only this object or its namespace, so that work on other runs continues."""


class ClusterError(Exception):
    """A request to the API server failed."""

    answer: "Answer | None" = None
    """The API server's answer, if there was one."""


class NoCluster(ClusterError):
    """No configuration says where the API server is, or it cannot be read."""


class ClusterUnavailable(ClusterError):
    """No answer, or one that means "try again": no connection, timeout, 401, 429, 5xx."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait before a retry, from the server's answer; None if it has none."""


class Unauthorized(ClusterUnavailable):
    """The credentials were rejected, even when freshly loaded; they may be renewed, or the server may be starting."""


class NoAnswer(ClusterUnavailable):
    """The connection could not be made, or broke."""

    def __init__(self, request: str, reason: str):
        super().__init__(f"{request}: {reason}")
        self.reason = reason


class TimedOut(NoAnswer):
    """The connection is open, but nothing was received for some time."""


class UntrustedCertificate(NoAnswer):
    """The server's certificate is not signed by an authority that we trust."""


class Conflict(ClusterError):
    """The object has changed since it was read (its resourceVersion or uid differs): read it again."""


class AlreadyExists(ClusterError):
    """An object of this name already exists."""


class Gone(ClusterError):
    """The object does not exist, or no longer exists."""


class Expired(ClusterError):
    """The continue token of a list has expired: start the list again."""


class NamespaceTerminating(ClusterError):
    """The namespace is being deleted or is gone: nothing can be created in it."""


class NamespaceMissing(NamespaceTerminating):
    """The namespace does not exist."""


class NotLeading(ClusterError):
    """Nothing was sent: this operator may not write because its lease is not valid."""


class Refused(ClusterError):
    """The API server understood the request and rejects it; a retry would be rejected too."""

    def __init__(self, refusal: Refusal):
        super().__init__(refusal.message)
        self.refusal = refusal


class UnknownKind(Refused):
    """The cluster does not serve the kind of the object: its definition is not installed."""


@dataclass(frozen=True)
class Target:
    """The object, or the kind of objects, that a request is about."""

    api_version: str
    kind: str
    name: str | None = None
    """None stands for all objects of the kind."""

    def __str__(self) -> str:
        return self.kind if self.name is None else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Answer:
    """The API server's answer to a request."""

    code: int
    body: Mapping[str, Any] = field(default_factory=dict)
    """The JSON object; empty if the answer was anything else."""
    text: str = ""
    """The answer as text, if it was not a JSON object."""
    retry_after: float | None = None

    @property
    def message(self) -> str:
        """The error in the server's words."""
        message = str(self.body.get("message") or self.text).strip() or f"HTTP status {self.code}"
        return message if len(message) <= MAX_MESSAGE_LENGTH else f"{message[: MAX_MESSAGE_LENGTH - 1]}…"


def error_of(target: Target, answer: Answer) -> ClusterError:
    """The exception for an answer with a code of 300 or more. Whatever the caller, a code is interpreted only here."""
    error = _classified(target, answer)
    error.answer = answer
    return error


def _classified(target: Target, answer: Answer) -> ClusterError:
    message, code = f"{target}: {answer.message}", answer.code
    if _namespace_is_terminating(target, answer):
        return NamespaceMissing(message) if code == 404 else NamespaceTerminating(message)
    if any(words in message for words in SINGLE_OBJECT_ERRORS):
        return Refused(Refusal("Error", message))
    if code == 404:
        return _missing(target, answer)
    if code == 409:
        return AlreadyExists(message) if answer.body.get("reason") == "AlreadyExists" else Conflict(message)
    if code == 422 and _is_other_object(answer):
        return Conflict(message)
    if code == 410:
        return Expired(message)
    if code == 401:
        return Unauthorized(message)
    if code in (408, 429) or (code >= 500 and code != 501):
        return ClusterUnavailable(message, _retry_after(answer))
    return Refused(_refusal(code, message))


def _refusal(code: int, message: str) -> Refusal:
    # "status unknown for quota": the quota is so new that its usage has not been counted yet.
    if code == 403 and ("exceeded quota" in message or "status unknown for quota" in message):
        return Refusal("QuotaExceeded", message)
    # A webhook may deny with any code; most use 400 or 403.
    if code == 403 or "denied the request" in message:
        return Refusal("Forbidden", message)
    return Refusal("Invalid" if code in (400, 413, 422) else "Error", message)


def _missing(target: Target, answer: Answer) -> ClusterError:
    details = answer.body.get("details") or {}
    if details.get("name"):
        return Gone(f"{target}: {answer.message}")
    # The answer names no object: the kind itself is missing.
    group = target.api_version.partition("/")[0]
    unknown = f"{target}: this cluster does not serve the kind {target.kind} of {target.api_version}"
    if target.kind == "PodGroup":
        scheduler = POD_GROUP_PROVIDERS.get(group, f"what serves {group}")
        return UnknownKind(
            Refusal("GangUnavailable", f"{unknown}; install {scheduler}, or set spec.scheduling.gang to none")
        )
    return UnknownKind(Refusal("Error", unknown))


def _is_other_object(answer: Answer) -> bool:
    """Whether the object has another uid than the change was meant for, or now has another controller."""
    causes = (answer.body.get("details") or {}).get("causes") or []
    return any(cause.get("field") in ("metadata.uid", "metadata.ownerReferences") for cause in causes)


def _namespace_is_terminating(target: Target, answer: Answer) -> bool:
    details = answer.body.get("details") or {}
    if answer.code == 404:
        return details.get("kind") == "namespaces" and target.kind != "Namespace"
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
