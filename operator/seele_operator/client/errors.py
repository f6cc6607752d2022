"""The errors of the commands for clusters, each with one line for the user that names the remedy."""

from dataclasses import dataclass

from seele_operator.kube import errors as kube
from seele_operator.observe.raw import entries, mapping, text
from seele_trainer.termination import ExitCode


class CommandError(Exception):
    """Ends a command with this line and this exit code."""

    exit_code = ExitCode.FAILED


class BadInput(CommandError):
    """The request cannot be fulfilled: an unknown context, run or pod, or a run in the wrong state."""

    exit_code = ExitCode.BAD_INPUT


class Missing(BadInput):
    """The named object does not exist."""


class ServerError(CommandError):
    """The cluster rejects the request or fails: no permission, no CRD, an internal error."""


class NotReady(ServerError):
    """The object exists but cannot do that yet, such as the log of a container that has not started."""


class Unreachable(ServerError):
    """No answer, or one that means "try again"."""


class Silence(Unreachable):
    """The connection is open, but nothing was received for some time."""


NO_CRD = (
    "the cluster has no SeeleRun resource; install Seele's operator, or the resource definition alone: "
    "seele crd | kubectl apply -f -"
)


@dataclass(frozen=True)
class Request:
    """A request in the words of a role's rules."""

    verb: str
    resource: str
    """Plural name, with the subresource: `pods/log`."""
    namespace: str | None
    """None for all namespaces."""

    def __str__(self) -> str:
        place = "all namespaces" if self.namespace is None else f"namespace {self.namespace}"
        return f"{self.verb} {self.resource} in {place}"


def user_error(error: kube.ClusterError, request: Request, cluster: str) -> CommandError:
    """The error for the user of a request that failed; `cluster` is the cluster in words."""
    answer = error.answer or kube.Answer(0)
    message = " ".join((answer.text[:200] or answer.message).split())
    # Rejected by the schema, or denied by a webhook.
    invalid = answer.code in (400, 413, 422)
    match error:
        case kube.UntrustedCertificate():
            return ServerError(
                f"{cluster} has a certificate that is not trusted: {error.reason}; "
                "check certificate-authority in the kubeconfig"
            )
        case kube.TimedOut():
            return Silence(f"{cluster} does not answer in time; try again")
        case kube.NoAnswer():
            return Unreachable(
                f"{cluster} does not answer: {error.reason}; check that the cluster is up and its address is right"
            )
        case kube.Unauthorized():
            return ServerError(f"{cluster} does not accept the credentials; log in again, or check the kubeconfig")
        # A webhook that does not answer is a 500, too.
        case _ if isinstance(error, kube.ClusterUnavailable) or answer.code == 500:
            return Unreachable(f"the API server cannot {request} now ({answer.code}): {message}; try again")
        case kube.NamespaceMissing():
            return BadInput(
                f"namespace {request.namespace} does not exist; "
                f"create it (kubectl create namespace {request.namespace}), or give another with -n"
            )
        case kube.UnknownKind():
            return ServerError(NO_CRD)
        case kube.Gone():
            return Missing(message)
        case kube.Refused() if invalid and request.resource == "pods/log":
            return NotReady(message)
        case kube.Refused() if invalid:
            return BadInput("\n".join(_causes(answer)) or f"the API server refuses to {request}: {message}")
        case kube.Refused() if error.refusal.reason == "Forbidden" and "denied the request" not in message:
            return ServerError(f"forbidden: {request}: {message}; ask for a role with these rights")
        case kube.Refused():
            return ServerError(f"the API server refuses to {request} ({answer.code}): {message}")
        case _:
            return ServerError(f"the API server refuses to {request}: {message}; try again")


def _causes(answer: kube.Answer) -> list[str]:
    """A line for each invalid field of a rejected object."""
    return [
        f"{text(cause, 'field') or 'the run'}: {text(cause, 'message')} (refused by the API server)"
        for cause in entries(mapping(answer.body, "details"), "causes")
    ]
