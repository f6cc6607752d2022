"""Why a pod failed: what the kubelet, the scheduler and the API server report, as one class and one stable reason.

Anything the cluster did to a pod is a disruption, and counts against a larger budget than failures of the run's own
processes. Kubernetes reports disruptions in several places, and old and new releases use different ones.
"""

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Self

from seele_operator.api.status import FailureClass
from seele_operator.observe.last_words import error_line, last_words, log_lines, without_noise
from seele_operator.observe.raw import condition, deletion_requested, entries, mapping, moment, number, terminated, text
from seele_trainer.termination import ExitCode

MAIN_CONTAINERS = ("trainer", "rollout")
"""The containers that do a pod's work; all others prepare these or come from the user's pod template."""
LOG_TAIL = 1000
"""Characters kept of a container's termination message or log."""
_LOG_LINES = 80

_BAD_INPUT_CONTAINERS = ("trainer", "prepare-model")
_STOPPED_BY_SIGNAL = (128 + signal.SIGINT, 128 + signal.SIGTERM)
_POD_REASONS = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "Preempted": "Preempted",
    "NodeLost": "NodeLost",
    # The kubelet's own shutdown, by release: 1.20, 1.21, and since.
    "Shutdown": "NodeShutdown",
    "NodeShutdown": "NodeShutdown",
    "Terminated": "NodeShutdown",
    "UnexpectedAdmissionError": "UnexpectedAdmissionError",
}
"""`status.reason` of a disrupted pod, and our reason for it; `OutOfcpu` and the like are disruptions too."""
_REFUSED_BY_KUBELET = (
    "AppArmor",
    "NoNewPrivs",
    "ProcMount",
    "SysctlForbidden",
    "PodOSNotSupported",
    "DeadlineExceeded",
)
"""`status.reason` of a pod that would fail in the same way in another attempt."""
_TARGETS = ("DisruptionTarget", "TerminationTarget")
"""Conditions of a pod that is about to be disrupted: by Kubernetes 1.26 and later, and by Kueue."""
_CONTAINER_REASONS = ("OOMKilled", "StartError", "ContainerCannotRun", "DeadlineExceeded")
"""Reasons of a terminated container that say more than its exit code."""


@dataclass(frozen=True)
class PodFailure:
    """Why a pod failed."""

    failure_class: FailureClass
    reason: str
    """One stable word: OOMKilled, Error, BadInput, Evicted, Preempted, NodeLost, PodDeleted, ..."""
    container: str | None
    exit_code: int | None
    message: str
    """A sentence, followed by what is known of the container's log: the error first, then the lines that led to it."""
    ended_at: datetime | None = None
    """When the container ended, by its node's clock; the first pod of a gang to end is the one that failed."""
    started_at: datetime | None = None
    """When the container started, by its node's clock."""
    error: str = ""
    """The line of its log that names the error; empty if unknown."""

    @property
    def hopeless(self) -> bool:
        """Whether a restart cannot help: the trainer rejected its input (exit code 2)."""
        return self.reason == "BadInput"

    @property
    def needs_log(self) -> bool:
        """Whether only the container's log tells the reason: the kubelet keeps 80 lines or 2,048 bytes of a server's log,
        which end in noise, and nothing at all if it exits with code 0, as vLLM does when its engine has died.
        """
        return self.container == "rollout" and self.reason in ("Error", "Exited")

    def with_log(self, log: str) -> Self:
        """The failure as the container's log explains it."""
        lines = log_lines(log)
        if not any(lines):
            return self
        sentence = self.message.partition("\n")[0].removesuffix(":")
        return replace(self, message=_quoting(sentence, lines), error=error_line(lines)[:LOG_TAIL])


@dataclass(frozen=True)
class Disruption:
    """What the cluster did to a pod or is about to do, according to the pod."""

    reason: str
    """Evicted, Preempted, NodeLost, NodeShutdown, OutOfcpu, ..., or the reason of the condition DisruptionTarget."""
    message: str


def main_container_done(body: Mapping[str, Any]) -> bool:
    """Whether the pod's main container has succeeded, even if sidecars are still running."""
    return any(terminated(status).get("exitCode") == 0 for status in _main_statuses(body))


def termination_message(body: Mapping[str, Any]) -> str:
    """The termination message of the pod's main container, if that succeeded or was stopped by a signal; else empty."""
    for status in _main_statuses(body):
        ended = terminated(status)
        if ended.get("exitCode") in (0, *_STOPPED_BY_SIGNAL):
            return text(ended, "message")
    return ""


def pod_failure(body: Mapping[str, Any]) -> PodFailure | None:
    """Why the raw pod failed; None if it did not fail, or if the cluster has not stopped it yet."""
    failed = mapping(body, "status").get("phase") == "Failed"
    ended = (_failed_container(body) if failed else next(_ended_badly(_main_statuses(body)), None)) or _exited(body)
    disruption = pod_disruption(body)
    if (not failed and ended is None) or _trainer_done(body):
        return None
    container, state = ended or (None, {})
    exit_code, ended_at = number(state, "exitCode"), moment(state, "finishedAt")
    disruption = disruption or _stopped_by_deletion(body, state, ended_at)
    if disruption is not None:
        return PodFailure("disruption", disruption.reason, container, exit_code, disruption.message, ended_at)
    if container is None:
        return _never_ran(mapping(body, "status"))
    failure_class, reason = _classify(container, state, exit_code)
    failure = PodFailure(
        failure_class,
        reason,
        container,
        exit_code,
        _sentence(container, state, exit_code),
        ended_at,
        moment(state, "startedAt"),
    )
    lines = log_lines(text(state, "message"))
    if (
        exit_code in (ExitCode.FAILED, ExitCode.BAD_INPUT)
        and container in _BAD_INPUT_CONTAINERS
        and not error_line(lines)
    ):
        # Its own words, which begin with the reason.
        words = "\n".join(lines).strip()
        return replace(failure, message=_joined(failure.message, f"{words[:LOG_TAIL]}{'…' * (len(words) > LOG_TAIL)}"))
    return failure.with_log("\n".join(lines))


def pod_disruption(body: Mapping[str, Any]) -> Disruption | None:
    """What the cluster did to the raw pod or is about to do; None if the pod reports no disruption."""
    status = mapping(body, "status")
    reason = text(status, "reason")
    known = _POD_REASONS.get(reason) or (reason if reason.startswith("OutOf") else None)
    target = next((found for kind in _TARGETS if (found := condition(body, kind)).get("status") == "True"), {})
    if known is not None:
        return Disruption(known, text(status, "message") or text(target, "message") or f"the pod's reason is {reason}")
    exact = text(target, "reason") or "DisruptionTarget"
    # Old releases set no condition for a lost node, and new ones the condition of any taint: one reason for both.
    if exact in ("DisruptionTarget", "DeletionByTaintManager") and _node_is_silent(body):
        return Disruption("NodeLost", f"node {text(mapping(body, 'spec'), 'nodeName')} does not answer")
    if target:
        return Disruption(exact, text(target, "message") or f"the pod is a target of disruption: {exact}")
    return None


def shortened(log: str, limit: int = LOG_TAIL) -> str:
    """The last lines of `log` that fit into `limit` characters; the end of the last line if that alone is longer."""
    log = log.strip()
    if len(log) <= limit:
        return log
    # One character more shows whether the cut is at the start of a line.
    _, newline, whole_lines = log[-limit - 1 :].partition("\n")
    return whole_lines if newline and whole_lines else f"…{log[1 - limit :]}"


def _quoting(sentence: str, log: Sequence[str]) -> str:
    """The sentence and the end of a log, with the line that names the error first."""
    first = error_line(log)[:LOG_TAIL]
    others = last_words(log, _LOG_LINES)[1:] if first else without_noise(log)[-_LOG_LINES:]
    rest = shortened("\n".join(others), LOG_TAIL - min(len(first), LOG_TAIL // 2))
    return _joined(sentence, "\n".join(line for line in (first, rest) if line))


def _joined(sentence: str, words: str) -> str:
    return f"{sentence}:\n{words}" if words else sentence


def _trainer_done(body: Mapping[str, Any]) -> bool:
    """Whether the trainer has done its work, so that the fate of sidecars or the node no longer matters.

    A trainer that is stopped exits with 130, but a server exits with 0 even then.
    """
    return any(
        text(status, "name") == "trainer" and terminated(status).get("exitCode") == 0 for status in _main_statuses(body)
    )


def _exited(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """A server that ended with exit code 0, although servers have no end of their own."""
    found = ((text(status, "name"), terminated(status)) for status in _main_statuses(body))
    return next(((name, state) for name, state in found if name == "rollout" and number(state, "exitCode") == 0), None)


def _node_is_silent(body: Mapping[str, Any]) -> bool:
    """Whether the node controller has set the pod to not ready, as it does when it loses a node.

    The kubelet changes both conditions together. A readiness gate changes only the first, and gives that as the reason.
    """
    ready, containers = condition(body, "Ready"), condition(body, "ContainersReady")
    return (
        deletion_requested(body) is not None
        and ready.get("status") == "False"
        and containers.get("status") == "True"
        and text(ready, "reason") != "ReadinessGatesNotReady"
    )


def _stopped_by_deletion(
    body: Mapping[str, Any], state: Mapping[str, Any], ended: datetime | None
) -> Disruption | None:
    """The disruption of a container that ended after its pod's deletion was requested, whatever its exit code."""
    requested = deletion_requested(body)
    if requested is None or state.get("reason") == "OOMKilled" or (ended is not None and ended < requested):
        return None
    return Disruption("PodDeleted", "the pod was deleted")


def _never_ran(status: Mapping[str, Any]) -> PodFailure:
    """The failure of a pod none of whose containers ended with an error: the kubelet rejected or dropped it."""
    reason = text(status, "reason") or "PodFailed"
    message = text(status, "message") or "the pod failed, and none of its containers says why"
    return PodFailure("application" if reason in _REFUSED_BY_KUBELET else "disruption", reason, None, None, message)


def _classify(container: str, state: Mapping[str, Any], exit_code: int | None) -> tuple[FailureClass, str]:
    reason = text(state, "reason")
    if reason in _CONTAINER_REASONS:
        return "application", reason
    if reason == "ContainerStatusUnknown":
        return "disruption", reason
    if exit_code == ExitCode.BAD_INPUT and container in _BAD_INPUT_CONTAINERS:
        return "application", "BadInput"
    if exit_code in _STOPPED_BY_SIGNAL:
        return "disruption", "Terminated"
    if exit_code == 0:
        return "application", "Exited"
    return "application", "Error"


def _sentence(container: str, state: Mapping[str, Any], exit_code: int | None) -> str:
    reason = text(state, "reason")
    why = "was killed for using more memory than its limit" if reason == "OOMKilled" else "ended"
    why = "ended before the run did" if exit_code == 0 else why
    code = f"exit code {exit_code}{_signal_name(exit_code)}" if exit_code is not None else "no exit code"
    return f"container {container} {why}, with {code}"


def _signal_name(exit_code: int) -> str:
    try:
        return f" ({signal.Signals(exit_code - 128).name})"
    except ValueError:
        return ""


def _failed_container(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The container that made the pod fail: its main one, else the first that failed."""
    status = mapping(body, "status")
    statuses = [*_main_statuses(body), *entries(status, "initContainerStatuses"), *entries(status, "containerStatuses")]
    return next(_ended_badly(statuses), None)


def _ended_badly(statuses: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for status in statuses:
        state = terminated(status)
        if state and number(state, "exitCode") != 0:
            yield text(status, "name"), state


def _main_statuses(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = entries(mapping(body, "status"), "containerStatuses")
    return [status for status in found if status.get("name") in MAIN_CONTAINERS]
