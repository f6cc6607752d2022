"""Why a pod failed: the kubelet's, the scheduler's and the API server's words, as one class and one stable reason.

Whatever the cluster did to a pod is a disruption, and counts against a larger budget than failures of the run's own
processes. Kubernetes says the former in several places, of which old and new releases fill different ones.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from seele_operator.api.status import FailureClass
from seele_operator.observe.raw import condition, deletion_asked, entries, mapping, moment, number, text

MAIN_CONTAINERS = ("trainer", "rollout")
"""Containers that a pod is there for; any other comes from the user's pod template or prepares these."""
LOG_TAIL = 1000
"""Characters of a container's last words that are kept."""

_BAD_INPUT_CONTAINERS = ("trainer", "prepare-model")
_BAD_INPUT = 2
_ASKED_TO_STOP = (128 + signal.SIGINT, 128 + signal.SIGTERM)
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
"""`status.reason` of a disrupted pod, and our word for it; `OutOfcpu` and its like are disruptions besides."""
_REFUSED_BY_KUBELET = (
    "AppArmor",
    "NoNewPrivs",
    "ProcMount",
    "SysctlForbidden",
    "PodOSNotSupported",
    "DeadlineExceeded",
)
"""`status.reason` of a pod that another attempt would end in the same way."""
_TARGETS = ("DisruptionTarget", "TerminationTarget")
"""Pod conditions of what is about to be disrupted: those of Kubernetes from 1.26 on, and those of Kueue."""
_CONTAINER_REASONS = ("OOMKilled", "StartError", "ContainerCannotRun", "DeadlineExceeded")
"""Reasons of a terminated container that say more than its exit code does."""


@dataclass(frozen=True)
class PodFailure:
    """Why a pod failed."""

    failure_class: FailureClass
    reason: str
    """One stable word: OOMKilled, Error, BadInput, Evicted, Preempted, NodeLost, PodDeleted, ..."""
    container: str | None
    exit_code: int | None
    message: str
    """In words, with the end of the container's log where the kubelet kept it."""
    ended_at: datetime | None = None
    """When the container ended, by its node's clock; the first of a gang to end is the one that failed."""

    @property
    def hopeless(self) -> bool:
        """Whether a restart could not change the outcome: the trainer refused its input (exit code 2)."""
        return self.reason == "BadInput"


@dataclass(frozen=True)
class Disruption:
    """What the cluster did to a pod, where the pod says so."""

    reason: str
    """Evicted, Preempted, NodeLost, NodeShutdown, OutOfcpu, ..., or the reason of the condition DisruptionTarget."""
    message: str


def main_container_done(body: Mapping[str, Any]) -> bool:
    """Whether the pod's main container has ended well, whatever sidecars still do."""
    return any(_terminated(status).get("exitCode") == 0 for status in _main_statuses(body))


def last_words(body: Mapping[str, Any]) -> str:
    """What the pod's main container left behind when it ended as it was meant to, or because it was asked to."""
    for status in _main_statuses(body):
        ended = _terminated(status)
        if ended.get("exitCode") in (0, *_ASKED_TO_STOP):
            return text(ended, "message")
    return ""


def failure_of(body: Mapping[str, Any]) -> PodFailure | None:
    """Why the raw pod failed; None for one that did not, or that the cluster has not yet stopped."""
    failed = mapping(body, "status").get("phase") == "Failed"
    ended = _failed_container(body) if failed else next(_ended_badly(_main_statuses(body)), None)
    disruption = disruption_of(body)
    if (not failed and ended is None) or _ended_well(body, disruption):
        return None
    container, state = ended or (None, {})
    exit_code, ended_at = number(state, "exitCode"), moment(state, "finishedAt")
    disruption = disruption or _stopped_by_deletion(body, state, ended_at)
    if disruption is not None:
        return PodFailure("disruption", disruption.reason, container, exit_code, disruption.message, ended_at)
    if container is None:
        return _never_ran(mapping(body, "status"))
    failure_class, reason = _judged(container, state, exit_code)
    return PodFailure(failure_class, reason, container, exit_code, _last_words(container, state, exit_code), ended_at)


def disruption_of(body: Mapping[str, Any]) -> Disruption | None:
    """What the cluster did to the raw pod, or is about to do; None where it says nothing of the kind."""
    status = mapping(body, "status")
    reason = text(status, "reason")
    known = _POD_REASONS.get(reason) or (reason if reason.startswith("OutOf") else None)
    target = next((found for kind in _TARGETS if (found := condition(body, kind)).get("status") == "True"), {})
    if known is not None:
        return Disruption(known, text(status, "message") or text(target, "message") or f"the pod's reason is {reason}")
    exact = text(target, "reason") or "DisruptionTarget"
    # The taint of a lost node is one of many, and old releases have no condition: one word for both.
    if exact in ("DisruptionTarget", "DeletionByTaintManager") and _node_is_silent(body):
        return Disruption("NodeLost", f"node {text(mapping(body, 'spec'), 'nodeName')} does not answer")
    if target:
        return Disruption(exact, text(target, "message") or f"the pod is a target of disruption: {exact}")
    return None


def deletion(name: str, disruption: Disruption | None) -> PodFailure:
    """The failure of a pod that somebody else is deleting, or has deleted."""
    if disruption is not None:
        return PodFailure("disruption", disruption.reason, None, None, f"pod {name}: {disruption.message}")
    return PodFailure("disruption", "PodDeleted", None, None, f"pod {name} was deleted, and not by the operator")


def shortened(log: str, limit: int = LOG_TAIL) -> str:
    """The last lines of `log` that fit into `limit` characters; the end of its last line where that alone is longer."""
    log = log.strip()
    if len(log) <= limit:
        return log
    # One character more tells whether the cut is at the beginning of a line.
    _, newline, whole_lines = log[-limit - 1 :].partition("\n")
    return whole_lines if newline and whole_lines else f"…{log[1 - limit :]}"


def _ended_well(body: Mapping[str, Any], disruption: Disruption | None) -> bool:
    """Whether the main container has done its work, so that neither a sidecar nor the end of the node can undo it.

    A trainer that is told to stop exits with 130, but a server exits with 0 as well.
    """
    done = [text(status, "name") for status in _main_statuses(body) if _terminated(status).get("exitCode") == 0]
    return "trainer" in done or (bool(done) and disruption is None)


def _node_is_silent(body: Mapping[str, Any]) -> bool:
    """Whether the node controller took the pod's readiness away, which it does for a node that it has lost.

    The kubelet takes both conditions away together. A readiness gate takes away the first alone, and says so.
    """
    ready, containers = condition(body, "Ready"), condition(body, "ContainersReady")
    return (
        deletion_asked(body) is not None
        and ready.get("status") == "False"
        and containers.get("status") == "True"
        and text(ready, "reason") != "ReadinessGatesNotReady"
    )


def _stopped_by_deletion(
    body: Mapping[str, Any], state: Mapping[str, Any], ended: datetime | None
) -> Disruption | None:
    """A container that ended after its pod's deletion was asked for ended because of that, whatever its exit code."""
    asked = deletion_asked(body)
    if asked is None or state.get("reason") == "OOMKilled" or (ended is not None and ended < asked):
        return None
    return Disruption("PodDeleted", "the pod was deleted")


def _never_ran(status: Mapping[str, Any]) -> PodFailure:
    """A failed pod none of whose containers ended with an error: its kubelet did not let it in, or let it go."""
    reason = text(status, "reason") or "PodFailed"
    message = text(status, "message") or "the pod failed, and no container of it says why"
    return PodFailure("application" if reason in _REFUSED_BY_KUBELET else "disruption", reason, None, None, message)


def _judged(container: str, state: Mapping[str, Any], exit_code: int | None) -> tuple[FailureClass, str]:
    reason = text(state, "reason")
    if reason in _CONTAINER_REASONS:
        return "application", reason
    if reason == "ContainerStatusUnknown":
        return "disruption", reason
    if exit_code == _BAD_INPUT and container in _BAD_INPUT_CONTAINERS:
        return "application", "BadInput"
    if exit_code in _ASKED_TO_STOP:
        return "disruption", "Terminated"
    return "application", "Error"


def _last_words(container: str, state: Mapping[str, Any], exit_code: int | None) -> str:
    reason = text(state, "reason")
    why = "was killed for using more memory than its limit" if reason == "OOMKilled" else "ended"
    code = f"exit code {exit_code}{_signal_name(exit_code)}" if exit_code is not None else "no exit code"
    log = shortened(text(state, "message"))
    return f"container {container} {why}, with {code}" + (f":\n{log}" if log else "")


def _signal_name(exit_code: int) -> str:
    try:
        return f" ({signal.Signals(exit_code - 128).name})"
    except ValueError:
        return ""


def _failed_container(body: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The container that a failed pod failed by: its main one, else the first that failed."""
    status = mapping(body, "status")
    statuses = [*_main_statuses(body), *entries(status, "initContainerStatuses"), *entries(status, "containerStatuses")]
    return next(_ended_badly(statuses), None)


def _ended_badly(statuses: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for status in statuses:
        state = _terminated(status)
        if state and number(state, "exitCode") != 0:
            yield text(status, "name"), state


def _main_statuses(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = entries(mapping(body, "status"), "containerStatuses")
    return [status for status in found if status.get("name") in MAIN_CONTAINERS]


def _terminated(container_status: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(container_status, "state", "terminated")
