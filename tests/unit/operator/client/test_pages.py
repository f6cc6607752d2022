"""What `seele status` shows: the table, and one run in detail."""

from datetime import UTC, datetime

import pytest

from seele_operator.client.pages import Detail, detail_lines, runs_table
from seele_operator.client.pods import SeenPod, see_pods
from seele_operator.client.runs import NO_OPERATOR, see
from tests.support.client_bodies import RUN_UID, RUNNING, Body, ended, pod_body, run_body, waiting

NOW = datetime(2026, 11, 22, 11, 0, tzinfo=UTC)
BUSY: Body = {
    "phase": "Running",
    "message": "step 12 of 60",
    "attempt": 2,
    "attemptStartTime": "2026-11-22T10:40:00Z",
    "restarts": 1,
    "failures": {"application": 1, "disruption": 0},
    "step": 12,
    "steps": 60,
    "accuracy": 0.614,
    "hintRate": 0.424,
    "reward": 0.5,
    "policyVersion": 12,
    "etaSeconds": 750.0,
    "lastCheckpoint": {"step": 10, "path": "checkpoints/step-10"},
}


def condition(kind: str, answer: str, reason: str = "Because", message: str = "for a reason") -> Body:
    return {
        "type": kind,
        "status": answer,
        "reason": reason,
        "message": message,
        "observedGeneration": 1,
        "lastTransitionTime": "2026-11-22T10:00:00Z",
    }


def table(*bodies: Body, namespaces: bool = False) -> list[str]:
    return [line.plain for line in runs_table([see(body) for body in bodies], NOW, namespaces=namespaces)]


def page(body: Body, pods: list[Body] | None = None, events: list[Body] | None = None) -> str:
    seen = None if pods is None else see_pods(pods, RUN_UID)
    return "\n".join(line.plain for line in detail_lines(Detail(see(body), seen, events), NOW))


def test_the_table_has_a_line_a_run_by_name() -> None:
    assert table(run_body("b", **BUSY), run_body("a", phase="Succeeded", step=60, etaSeconds=0.0), run_body("c")) == [
        "NAME   PHASE       STEP    ACCURACY   HINT   REWARD   ETA   RESTARTS   AGE",
        "a      Succeeded   60/60   –          –      –        –     0          60m",
        "b      Running     12/60   61.4%      0.42   0.50     12m   1          60m",
        "c      –           0/60    –          –      –        –     0          60m",
    ]


def test_with_all_namespaces_each_line_names_its_own() -> None:
    lines = table(run_body("a", "z", phase="Pending"), run_body("b", "y", phase="Pending"), namespaces=True)

    assert [line.split()[:2] for line in lines] == [["NAMESPACE", "NAME"], ["y", "b"], ["z", "a"]]


def test_a_run_that_is_refused_or_deleted_looks_like_it() -> None:
    refused = run_body("a", phase="Pending", conditions=[condition("Valid", "False")])
    going = run_body("b", phase="Running")
    going["metadata"]["deletionTimestamp"] = "2026-11-22T10:59:00Z"

    assert [line.split("0/60")[0].split(maxsplit=1)[1].strip() for line in table(refused, going)[1:]] == [
        "Pending (invalid)",
        "Deleting",
    ]


def test_what_another_operator_wrote_and_cannot_be_read_is_left_out() -> None:
    odd = run_body("a", **{**BUSY, "reward": "high", "failures": 3, "conditions": [{"type": "New"}], "new": {}})

    assert table(odd)[1].split() == ["a", "Running", "12/60", "61.4%", "0.42", "–", "12m", "1", "60m"]
    assert table(run_body("a", phase="Resting"))[1].split()[1] == "Resting"


def test_the_detail_of_a_run_that_is_well() -> None:
    good = [condition(kind, "True") for kind in ("Valid", "Scheduled", "RolloutReady", "TrainerReady", "Progressing")]
    conditions = [*good, condition("Complete", "False"), condition("Failed", "False")]
    text = page(run_body(**BUSY, conditions=conditions), [pod_body("trainer", 0, RUNNING, attempt=2)], [])

    assert text.splitlines() == [
        "quick in namespace default: Running",
        "step 12 of 60",
        "step          ██████░░░░░░░░░░░░░░░░░░░░░░░░ 12/60, 12m left",
        "accuracy      61.4% (held-out, without hints)",
        "hint rate     0.42",
        "reward        0.50",
        "policy        version 12",
        "checkpoint    step 10, checkpoints/step-10",
        "age           60m",
        "attempt       2, since 20m; 1 restart in all",
        "failures      1 of 3 in its own processes, 0 of 20 caused by the cluster",
        "",
        "pods",
        "  NAME              STATE     READY   NODE     AGE",
        "  quick-trainer-0   Running   yes     node-1   59m",
    ]


@pytest.mark.parametrize(
    ("phase", "kind", "answer", "shown"),
    [
        ("Pending", "Scheduled", "False", True),
        ("Starting", "RolloutReady", "Unknown", True),
        ("Running", "Progressing", "True", False),
        ("Suspended", "TrainerReady", "False", False),
        ("Succeeded", "Progressing", "False", False),
        ("Running", "Complete", "False", False),
        ("Failed", "Failed", "True", True),
        ("Running", "Valid", "False", True),
        ("Pending", "Valid", "Unknown", False),
    ],
)
def test_only_what_is_not_as_it_should_be_is_shown(phase: str, kind: str, answer: str, shown: bool) -> None:
    text = page(run_body(phase=phase, conditions=[condition(kind, answer)]))

    assert (f"  {kind} {answer}, Because\n    for a reason" in text) is shown


def test_the_last_failure_stands_with_its_message() -> None:
    failure = {
        "class": "application",
        "reason": "OOMKilled",
        "pod": "quick-trainer-1",
        "container": "trainer",
        "exitCode": 137,
        "message": "container trainer was killed\nlast words",
        "attempt": 1,
        "time": "2026-11-22T10:39:00Z",
    }
    text = page(run_body(**BUSY, lastFailure=failure, notBefore="2026-11-22T11:00:20Z"))

    assert (
        "last failure  OOMKilled in quick-trainer-1/trainer, exit code 137 (attempt 1, 21m ago)\n"
        "              container trainer was killed\n"
        "              last words"
    ) in text
    assert "next attempt  in 20s" in text


def test_pods_say_why_they_do_not_work() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes fit"}
    killed = ended(137, reason="OOMKilled")
    pods = [
        pod_body("rollout", 1, waiting("ImagePullBackOff", "Back-off pulling image x"), attempt=2),
        pod_body("rollout", 0, waiting("PodInitializing"), attempt=2, prepared=RUNNING),
        pod_body("trainer", 0, attempt=2, scheduled=unschedulable),
        pod_body("trainer", 1, killed, attempt=1),
    ]
    text = page(run_body(phase="Starting", attempt=2), pods)

    assert [line.rstrip() for line in text[text.index("  NAME") :].splitlines()] == [
        "  NAME                          STATE                 READY   NODE     AGE",
        "  quick-trainer-1 (attempt 1)   OOMKilled             no      node-1   59m",
        "    container trainer was killed for using more memory than its limit, with exit code 137 (SIGKILL)",
        "  quick-trainer-0               Unschedulable         no      –        59m",
        "    0/3 nodes fit",
        "  quick-rollout-0               Init: prepare-model   no      node-1   59m",
        "  quick-rollout-1               ImagePullBackOff      no      node-1   59m",
        "    container rollout: Back-off pulling image x",
    ]


def test_a_terminating_pod_and_a_foreign_one() -> None:
    going = pod_body("trainer", 0, RUNNING)
    going["metadata"]["deletionTimestamp"] = "2026-11-22T10:59:00Z"
    strange = pod_body("trainer", 1, RUNNING)
    strange["metadata"]["ownerReferences"][0]["uid"] = "another run of this name"
    pods: list[SeenPod] = see_pods([going, strange, {"metadata": {"name": "x"}}], RUN_UID)

    assert [(pod.seen.name, pod.state) for pod in pods] == [("quick-trainer-0", "Terminating")]


def test_the_last_ten_events_are_shown_in_order_whoever_wrote_them() -> None:
    times = [{"lastTimestamp": f"2026-11-22T10:{minute}:00Z"} for minute in range(10, 21)]
    events: list[Body] = [
        {"reason": f"R{at['lastTimestamp'][14:16]}", "type": "Normal", "message": "m", "count": 1, **at} for at in times
    ]
    newest = {"eventTime": "2026-11-22T10:50:00.123456Z", "lastTimestamp": None, "reason": "New", "message": "a\nb"}
    series = {"series": {"count": 4, "lastObservedTime": "2026-11-22T10:40:00.5Z"}, "reason": "Often", "message": "m"}
    text = page(run_body(**BUSY), [], [{**newest, "type": "Warning"}, *reversed(events), {**series, "type": "Normal"}])
    lines = text[text.index("events") :].splitlines()[2:]

    assert [line.split()[2] for line in lines] == [*(f"R{minute}" for minute in range(13, 21)), "Often", "New"]
    assert lines[-2].endswith("m (4 times)")
    assert lines[-1].split()[0] == "10m"
    assert lines[-1].endswith("a b")


def test_a_run_that_no_operator_takes_up_says_so_after_some_seconds() -> None:
    young = run_body()
    young["metadata"]["creationTimestamp"] = "2026-11-22T10:59:57Z"

    assert NO_OPERATOR in page(run_body())
    assert NO_OPERATOR not in page(young)
    assert "quick in namespace default: not picked up" in page(young)


def test_a_change_that_the_operator_has_not_seen_is_mentioned() -> None:
    body = run_body(**BUSY)
    body["metadata"]["generation"] = 2
    body["spec"]["runPolicy"] = {"suspend": True, "backoffLimit": 7}
    text = page(body)

    assert "the operator has not seen the latest change yet" in text
    assert "suspension requested" in text
    assert "1 of 7 in its own processes" in text
