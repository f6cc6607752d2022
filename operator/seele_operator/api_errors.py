"""What the API server's errors mean to the operator: one exception for each way to go on."""

from __future__ import annotations

from seele_operator.decide import Refusal


class ClusterError(Exception):
    """The API server did not do what it was asked to."""


class ClusterUnavailable(ClusterError):
    """No answer, or one that says to try again: no connection, time-out, 401, 429, 5xx."""

    def __init__(self, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to wait; None where it did not say."""


class Conflict(ClusterError):
    """The object has changed since it was read (its resourceVersion or uid does not match): read it again."""


class Gone(ClusterError):
    """The object to be changed does not exist any more."""


class NamespaceTerminating(ClusterError):
    """The namespace is being deleted, or is gone: nothing can be created in it, ever again."""


class NotLeading(ClusterError):
    """Nothing was sent: this operator may not write, because its lease is not valid."""


class Refused(ClusterError):
    """The API server understood the request and will not do it; the same request would be refused again."""

    def __init__(self, refusal: Refusal):
        super().__init__(refusal.message)
        self.refusal = refusal
