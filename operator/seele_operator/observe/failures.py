"""Why a pod failed: what the kubelet, the scheduler and the API server report, as one class and one stable reason.

Anything the cluster did to a pod is a disruption, and counts against a larger budget than failures of the run's own
processes. Kubernetes reports disruptions in several places, and old and new releases use different ones.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from seele_operator.api.status import FailureClass
from seele_operator.observe.last_words import last_words
from seele_operator.observe.raw import condition, deletion_requested, entries, mapping, moment, number, terminated, text
from seele_trainer.termination import ExitCode

MAIN_CONTAINERS = ("trainer", "rollout")
"""The containers that do a pod's work; all others prepare these or come from the user's pod template."""
LOG_TAIL = 1000
"""Characters kept of a container's termination message."""
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
    """A sentence, followed by the end of the container's log if the kubelet kept it; of a server, the error comes first."""
    ended_at: datetime | None = None
    """When the container ended, by its node's clock; the first pod of a gang to end is the one that failed."""

    @property
    def hopeless(self) -> bool:
        """Whether a restart cannot help: the trainer rejected its input (exit code 2)."""
        return self.reason == "BadInput"


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
    ended = _failed_container(body) if failed else next(_ended_badly(_main_statuses(body)), None)
    disruption = pod_disruption(body)
    if (not failed and ended is None) or _ended_well(body, disruption):
        return None
    container, state = ended or (None, {})
    exit_code, ended_at = number(state, "exitCode"), moment(state, "finishedAt")
    disruption = disruption or _stopped_by_deletion(body, state, ended_at)
    if disruption is not None:
        return PodFailure("disruption", disruption.reason, container, exit_code, disruption.message, ended_at)
    if container is None:
        return _never_ran(mapping(body, "status"))
    failure_class, reason = _classify(container, state, exit_code)
    return PodFailure(
        failure_class, reason, container, exit_code, _application_message(container, state, exit_code), ended_at
    )


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


def _explained(log: str) -> str:
    """The end of a server's log, with the line that names the error first: the kubelet keeps 80 lines or 2,048 bytes."""
    first, *others = last_words(log.splitlines(), _LOG_LINES) or [""]
    rest = shortened("\n".join(others), LOG_TAIL - min(len(first), LOG_TAIL // 2))
    return "\n".join(line for line in (first[:LOG_TAIL], rest) if line)


def _ended_well(body: Mapping[str, Any], disruption: Disruption | None) -> bool:
    """Whether the main container has done its work, so that the fate of sidecars or the node no longer matters.

    A trainer that is stopped exits with 130, but a server exits with 0 even then.
    """
    done = [text(status, "name") for status in _main_statuses(body) if terminated(status).get("exitCode") == 0]
    return "trainer" in done or (bool(done) and disruption is None)


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
    return "application", "Error"


def _application_message(container: str, state: Mapping[str, Any], exit_code: int | None) -> str:
    reason = text(state, "reason")
    why = "was killed for using more memory than its limit" if reason == "OOMKilled" else "ended"
    code = f"exit code {exit_code}{_signal_name(exit_code)}" if exit_code is not None else "no exit code"
    log = _explained(text(state, "message")) if container == "rollout" else shortened(text(state, "message"))
    return f"container {container} {why}, with {code}" + (f":\n{log}" if log else "")


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
