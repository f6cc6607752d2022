"""What an answer of the API server that is no success means to the user, in one line with the remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seele_operator.api.seelerun import PLURAL


class RemoteError(Exception):
    """A command ends with this line and this exit code."""

    exit_code = 1


class BadInput(RemoteError):
    """What the user asked for cannot be: an unknown context, run or pod, or a run that is not in a state for it."""

    exit_code = 2


class ServerTrouble(RemoteError):
    """The cluster refuses or fails: no rights, no CRD, an internal error."""


class Unreachable(ServerTrouble):
    """No answer, or one that says to try again: it makes sense to ask once more."""


class Silence(Unreachable):
    """The connection stands, and nothing came over it for some time."""


NO_CRD = (
    "the cluster knows no SeeleRun; install Seele's operator, or its resource definition alone: "
    "seele crd | kubectl apply -f -"
)


@dataclass(frozen=True)
class Asked:
    """What was asked for, in the words of a role's rules."""

    verb: str
    resource: str
    """Plural name, with the sub-resource: `pods/log`."""
    namespace: str | None
    """None for all namespaces."""
    name: str | None = None

    def __str__(self) -> str:
        where = "all namespaces" if self.namespace is None else f"namespace {self.namespace}"
        return f"{self.verb} {self.resource} in {where}"


class Missing(BadInput):
    """The object that was named does not exist."""


class NotReady(ServerTrouble):
    """The object exists, but cannot do that yet, such as the log of a container that has not started."""


def refusal(asked: Asked, status: int, body: bytes, cluster: str) -> RemoteError:
    """The error for an answer with the HTTP status `status`."""
    answer = _status(body)
    said = " ".join(str(answer.get("message") or body[:200].decode("utf-8", "replace")).split())
    match status:
        case 401:
            return ServerTrouble(f"{cluster} does not accept the credentials; log in again, or check the kubeconfig")
        case 403:
            return ServerTrouble(f"forbidden: {asked}: {said}; ask for a role with these rights")
        case 404:
            return _missing(asked, answer, said)
        case 400 if asked.resource == "pods/log":
            return NotReady(said)
        case 400 | 422:
            return BadInput("\n".join(_causes(answer)) or f"the API server refuses to {asked}: {said}")
        case 409:
            return ServerTrouble(f"the API server refuses to {asked}: {said}; try again")
        case 429 | 500 | 502 | 503 | 504:
            return Unreachable(f"the API server cannot {asked} now ({status}): {said or 'no reason given'}; try again")
        case _:
            return ServerTrouble(f"the API server refuses to {asked} ({status}): {said}")


def no_answer(error: Exception, cluster: str) -> RemoteError:
    """The error for a connection that could not be made, or broke."""
    from urllib3.exceptions import ReadTimeoutError

    reason = _reason(error)
    if isinstance(error, ReadTimeoutError):
        return Silence(f"{cluster} does not answer in time; try again")
    if "certificate" in reason.lower() and "verify" in reason.lower():
        return ServerTrouble(
            f"{cluster} has a certificate that is not trusted: {reason}; check certificate-authority in the kubeconfig"
        )
    return Unreachable(f"{cluster} does not answer: {reason}; check that the cluster is up and its address is right")


def _missing(asked: Asked, answer: Mapping[str, Any], said: str) -> RemoteError:
    details = answer.get("details")
    kind = details.get("kind") if isinstance(details, Mapping) else None
    if kind == "namespaces":
        return BadInput(
            f"namespace {asked.namespace} does not exist; "
            f"create it (kubectl create namespace {asked.namespace}), or give another with -n"
        )
    if kind is None and asked.resource == PLURAL:
        # A path that the API server does not know is answered in plain text.
        return ServerTrouble(NO_CRD)
    return Missing(said)


def _causes(answer: Mapping[str, Any]) -> list[str]:
    """Each wrong field of a refused object on a line of its own."""
    details = answer.get("details")
    causes = details.get("causes") if isinstance(details, Mapping) else None
    return [
        f"{cause.get('field') or 'the run'}: {cause.get('message')} (refused by the API server)"
        for cause in causes or ()
        if isinstance(cause, Mapping)
    ]


def _status(body: bytes) -> Mapping[str, Any]:
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, Mapping) and answer.get("kind") == "Status" else {}


def _reason(error: Exception) -> str:
    """The innermost reason, without addresses of objects: `Connection refused`, `timed out`."""
    inner: BaseException = error
    while (below := getattr(inner, "reason", None) or inner.__cause__) is not None and isinstance(below, BaseException):
        inner = below
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    text = " ".join(str(inner).split()) or type(inner).__name__
    # urllib3 puts the connection object in front of its words.
    return text.rpartition(">: ")[2] or text
