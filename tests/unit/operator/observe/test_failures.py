"""Why a pod failed, according to the kubelet and to how its containers ended."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seele_operator.observe.failures import LOG_TAIL, shortened
from seele_operator.observe.last_words import error_line
from tests.support import REPOSITORY
from tests.support.raw_pods import EVICTED, Body, container, ended, failed, observed, pod_body, running, state

NEVER_PULLED = container(waiting={"reason": "PodInitializing"})
FAILURES: dict[str, tuple[Body, str]] = {
    "an error": (failed(ended()), "application Error trainer 1"),
    "out of memory": (failed(ended(code=137, reason="OOMKilled")), "application OOMKilled trainer 137"),
    "a child out of memory": (failed(ended(code=1, reason="OOMKilled")), "application OOMKilled trainer 1"),
    "killed": (failed(ended(code=137)), "application Error trainer 137"),
    "segmentation fault": (failed(ended(code=139)), "application Error trainer 139"),
    "bad input": (failed(ended(code=2)), "application BadInput trainer 2"),
    "bad input of an init container": (
        failed(NEVER_PULLED, initContainerStatuses=[ended("prepare-model", 2)]),
        "application BadInput prepare-model 2",
    ),
    "a sidecar's code 2": (failed(running(), ended("logs", 2)), "application Error logs 2"),
    "vLLM's code 2": (failed(ended("rollout", 2)), "application Error rollout 2"),
    # vLLM shuts down in order when its engine has died.
    "vLLM's code 0": (
        {"phase": "Succeeded", "containerStatuses": [ended("rollout", 0, "Completed")]},
        "application Exited rollout 0",
    ),
    "vLLM's code 0 beside a sidecar": (
        {"phase": "Running", "containerStatuses": [running("logs"), ended("rollout", 0, "Completed")]},
        "application Exited rollout 0",
    ),
    "terminated from outside": (failed(ended(code=143)), "disruption Terminated trainer 143"),
    "interrupted from outside": (failed(ended(code=130)), "disruption Terminated trainer 130"),
    "no such command": (
        failed(ended(code=128, reason="StartError", message='exec: "seele": executable file not found in $PATH')),
        "application StartError trainer 128",
    ),
    "the main container before a sidecar": (
        failed(ended("logs", 9), ended("trainer", 1)),
        "application Error trainer 1",
    ),
    # Kubernetes 1.20 reports it only in status.reason, often while the containers are still being killed.
    "evicted": (failed(running(), reason="Evicted", message=EVICTED), "disruption Evicted None None"),
    "evicted, containers ended": (
        failed(ended(code=137), reason="Evicted", message=EVICTED),
        "disruption Evicted trainer 137",
    ),
    # Kubelets that run none of the containers, or end them all, report it in status.reason alone.
    **{
        reason: (failed(reason=reason, message="in the kubelet's words"), f"{expected} None None")
        for reason, expected in {
            "Preempting": "disruption Preempted",
            "Shutdown": "disruption NodeShutdown",  # 1.20
            "OutOfnvidia.com/gpu": "disruption OutOfnvidia.com/gpu",
            "UnexpectedAdmissionError": "disruption UnexpectedAdmissionError",
            "NodeAffinity": "disruption NodeAffinity",
            "SysctlForbidden": "application SysctlForbidden",
            "DeadlineExceeded": "application DeadlineExceeded",
        }.items()
    },
    "no reason": ({"phase": "Failed"}, "disruption PodFailed None None"),
    # From 1.26 on there is a condition too.
    "its node shut down": (
        failed(
            ended(code=137, reason="ContainerStatusUnknown"),
            reason="Terminated",
            message="Pod was terminated in response to imminent node shutdown.",
            conditions=[state("DisruptionTarget", "True", "TerminationByKubelet", "Pod was terminated")],
        ),
        "disruption NodeShutdown trainer 137",
    ),
    "the node was rebooted": (
        failed(ended(code=137, reason="ContainerStatusUnknown")),
        "disruption ContainerStatusUnknown trainer 137",
    ),
    **{
        reason: (
            failed(ended(code=1), conditions=[state("DisruptionTarget", "True", reason, "what happened to it")]),
            f"disruption {reason} trainer 1",
        )
        for reason in (
            "PreemptionByScheduler",
            "DeletionByTaintManager",
            "EvictionByEvictionAPI",
            "DeletionByPodGC",
            "TerminationByKubelet",
        )
    },
    "a disruption that did not come": (
        failed(ended(), conditions=[state("DisruptionTarget", "False", "PreemptionByScheduler")]),
        "application Error trainer 1",
    ),
    "evicted by Kueue": (
        failed(ended(code=143), conditions=[state("TerminationTarget", "True", "WorkloadEvictedDueToPreempted")]),
        "disruption WorkloadEvictedDueToPreempted trainer 143",
    ),
    # The phase lags behind while sidecars are running.
    "a sidecar is still running": (
        {"phase": "Running", "containerStatuses": [running("logs"), ended()]},
        "application Error trainer 1",
    ),
}
"""Status of a pod: class, reason, container and exit code of its failure."""


@pytest.mark.parametrize("case", FAILURES)
def test_why_a_pod_failed(case: str) -> None:
    status, expected = FAILURES[case]
    role = "rollout" if "vLLM" in case or "init" in case else "trainer"
    failure = observed(pod_body(status, role)).failure

    assert failure is not None
    assert f"{failure.failure_class} {failure.reason} {failure.container} {failure.exit_code}" == expected
    assert failure.hopeless == (failure.reason == "BadInput")
    assert len(failure.message) > 10


def test_the_message_is_that_of_the_kubelet_or_the_log() -> None:
    log = "Traceback (most recent call last):\nRuntimeError: CUDA error"
    crashed, evicted = failed(ended(code=139, message=log)), failed(reason="Evicted", message=EVICTED)

    # The error comes first.
    error = "RuntimeError: CUDA error\nTraceback (most recent call last):"
    assert message(crashed) == f"container trainer ended, with exit code 139 (SIGSEGV):\n{error}"
    assert message(failed(ended(message=log))) == f"container trainer ended, with exit code 1:\n{error}"
    assert message(evicted) == EVICTED
    assert "more memory than its limit" in message(failed(ended(code=137, reason="OOMKilled")))


def message(status: Body) -> str:
    failure = observed(pod_body(status)).failure
    assert failure is not None
    return failure.message


@pytest.mark.parametrize("container", ["trainer", "prepare-model"])
def test_the_own_words_of_a_container_are_kept_from_their_beginning(container: str) -> None:
    words = "the hub refuses model.name 'a/b' (401): give a token, or another name\n" + "more\x1b[0m\x07\n" * 999
    status = failed(ended(code=1, message=words)) if container == "trainer" else failed(NEVER_PULLED)
    if container == "prepare-model":
        status["initContainerStatuses"] = [ended("prepare-model", 1, message=words)]
    quoted = message(status).splitlines()

    assert quoted[1] == words.splitlines()[0]
    assert quoted[-1].endswith("…")
    assert len("\n".join(quoted)) < LOG_TAIL + 100
    assert "\x1b" not in message(status)
    assert "\x07" not in message(status)


def test_the_end_of_a_container_is_dated() -> None:
    failure = observed(pod_body(failed(ended(at="20:07:30")))).failure

    assert failure is not None
    assert failure.ended_at == datetime(2026, 11, 22, 20, 7, 30, tzinfo=UTC)


def test_a_failed_sidecar_beside_a_running_main_container_is_ignored() -> None:
    pod = observed(pod_body({"phase": "Running", "containerStatuses": [running(), ended("logs")]}))

    assert (pod.phase, pod.failure) == ("Running", None)


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Running", "containerStatuses": [running("logs"), ended(code=0, reason="Completed")]},
        failed(ended("logs", 1), ended(code=0, reason="Completed")),
        failed(ended(code=0, reason="Completed"), reason="Evicted", message=EVICTED),
        {"phase": "Succeeded"},
    ],
    ids=["sidecar runs on", "sidecar failed", "evicted when it was done", "plain"],
)
def test_a_trainer_whose_main_container_succeeded_has_succeeded(status: Body) -> None:
    pod = observed(pod_body(status))

    assert (pod.phase, pod.failure) == ("Succeeded", None)
    assert pod.lingers == (status["phase"] == "Running")


def test_an_evicted_server_has_failed_although_it_exits_with_0() -> None:
    pod = observed(pod_body(failed(ended("rollout", 0, "Completed"), reason="Evicted", message=EVICTED), "rollout"))

    assert pod.phase == "Failed"
    assert pod.failure is not None
    assert pod.failure.reason == "Evicted"


# The end of a container's log, as a failure quotes it


def test_a_short_log_is_kept() -> None:
    assert shortened("one\ntwo\n", 10) == "one\ntwo"


def test_a_long_log_starts_at_a_line() -> None:
    assert shortened("first line\nsecond\nthird", 12) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 13) == "second\nthird"
    assert shortened("first line\nsecond\nthird", 11) == "third"


def test_a_long_line_is_cut() -> None:
    assert shortened("abcdefghij", 4) == "…hij"


@given(st.text(alphabet="ab\n", max_size=60), st.integers(2, 20))
def test_the_end_of_a_log_is_kept(log: str, limit: int) -> None:
    left = shortened(log, limit)

    assert len(left) <= limit
    assert log.strip().endswith(left.removeprefix("…"))


@pytest.mark.parametrize("log", ["torn-weights", "context-too-long", "unknown-flag", "unknown-architecture"])
def test_the_error_of_a_server_comes_first_in_its_message(log: str) -> None:
    text = server_log(log)
    kept = text[-2048:] if log != "torn-weights" else text
    failure = observed(pod_body(failed(ended("rollout", 1, message=kept)))).failure

    assert failure is not None
    sentence, error, *rest = failure.message.splitlines()
    assert sentence == "container rollout ended, with exit code 1:"
    assert error == error_line(kept.splitlines())[:LOG_TAIL]
    assert len(failure.message) < 2 * LOG_TAIL
    assert not any("resource_tracker" in line for line in rest)


def server_log(name: str) -> str:
    return (REPOSITORY / "tests" / "unit" / "data" / "server_logs" / f"{name}.log").read_text()


@pytest.mark.parametrize(("code", "kept"), [(0, 0), (1, 2048)])
def test_the_log_of_a_server_tells_the_reason_that_the_kubelet_does_not(code: int, kept: int) -> None:
    log = server_log("unsupported-head-dim")
    phase = "Failed" if code else "Succeeded"
    status = {"phase": phase, "containerStatuses": [ended("rollout", code, message=log[len(log) - kept :])]}
    before = observed(pod_body(status, "rollout")).failure
    assert before is not None
    assert before.needs_log
    assert "head_dim" not in before.message

    failure = before.with_log(log + "\x1b[0m\x00")

    sentence, error, *_ = failure.message.splitlines()
    how = "ended before the run did" if code == 0 else "ended"
    assert sentence == f"container rollout {how}, with exit code {code}:"
    assert (
        error
        == failure.error
        == "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
    )
    assert len(failure.message) < 2 * LOG_TAIL
    assert before.with_log(" \n") == before


@pytest.mark.parametrize(
    "status",
    [
        failed(ended("rollout", 137, "OOMKilled")),
        failed(ended("rollout", 0, "Completed"), reason="Evicted", message=EVICTED),
        failed(NEVER_PULLED, initContainerStatuses=[ended("prepare-model", 1)]),
        failed(ended("logs", 1), running("rollout")),
        failed(ended("rollout", 143)),
    ],
    ids=["out of memory", "evicted", "init container", "sidecar", "terminated"],
)
def test_where_the_log_of_a_server_tells_nothing_more_it_is_not_read(status: Body) -> None:
    failure = observed(pod_body(status, "rollout")).failure

    assert failure is not None
    assert not failure.needs_log
