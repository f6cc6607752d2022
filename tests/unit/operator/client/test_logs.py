"""`seele logs` against an API server whose logs grow, end and break."""

import signal
import subprocess
import sys
import threading

import pytest
from aiohttp import web
from typer.testing import Result

from seele_operator.client import logs
from tests.support.client_bodies import RUNNING, Body, ended, pod_body, run_body, seele, waiting
from tests.support.fake_api_server import FakeApiServer, status
from tests.support.waiting import wait_for

T0, T1, T2, T3 = (f"2026-11-22T10:00:0{second}.5Z" for second in range(4))


@pytest.fixture(autouse=True)
def a_run(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(logs, "RETRY_SECONDS", 0.02)
    server.runs["quick"] = run_body(phase="Running", attempt=1)


class Following:
    """`seele logs -f` in a thread."""

    def __init__(self, *words: str):
        self.result: Result | None = None
        self._thread = threading.Thread(target=self._run, args=words, daemon=True)
        self._thread.start()

    def _run(self, *words: str) -> None:
        self.result = seele("logs", "quick", "-f", *words)

    def end(self) -> Result:
        self._thread.join(20)
        assert self.result is not None, "seele logs -f has not come to its end"
        return self.result


def finish(server: FakeApiServer, phase: str = "Succeeded", attempt: int = 1) -> None:
    """End the trainer, and with it the run."""
    server.change(lambda: server.pods.__setitem__(0, pod_body("trainer", 0, ended(), attempt=attempt)))
    server.change(lambda: server.runs.update(quick=run_body(phase=phase, attempt=1)))


def followed(server: FakeApiServer, *lines: tuple[str, str], words: tuple[str, ...] = ()) -> Following:
    """`seele logs -f` at the end of the log of a running trainer."""
    server.pods = [pod_body("trainer", 0, RUNNING)]
    server.write("quick-trainer-0", "trainer", *lines)
    following = Following(*words)
    wait_for(lambda: server.log("quick-trainer-0", "trainer").connections, "the log is followed")
    return following


def two_pods(server: FakeApiServer, state: Body) -> None:
    server.pods = [pod_body("rollout", 0, state, prepared=ended()), pod_body("trainer", 0, state)]
    server.write("quick-trainer-0", "trainer", (T0, "step 1"), (T2, "step 2"))
    server.write("quick-rollout-0", "rollout", (T1, "serving"))
    server.write("quick-rollout-0", "prepare-model", (T0, "written"), ended=True)


def test_every_line_follows_its_pod_and_init_containers_come_first(server: FakeApiServer) -> None:
    two_pods(server, RUNNING)
    result = seele("logs", "quick")

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        "trainer-0               │ step 1",
        "trainer-0               │ step 2",
        "rollout-0/prepare-model │ written",
        "rollout-0               │ serving",
    ]


def test_a_role_a_pod_the_last_lines_and_times_can_be_chosen(server: FakeApiServer) -> None:
    two_pods(server, RUNNING)

    assert seele("logs", "quick", "--role", "trainer", "--tail", "1").stdout == "trainer-0 │ step 2\n"
    assert seele("logs", "quick", "--pod", "quick-trainer-0", "--tail", "1").stdout == "trainer-0 │ step 2\n"
    assert seele("logs", "quick", "--pod", "trainer-0", "--timestamps").stdout.splitlines() == [
        f"trainer-0 │ {T0} step 1",
        f"trainer-0 │ {T2} step 2",
    ]
    seele("logs", "quick", "--role", "trainer", "--since", "1h30m")
    assert server.log("quick-trainer-0", "trainer").requests[-1]["sinceSeconds"] == "5400"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--pod", "trainer-1"], "--pod: trainer-1 is not a pod of quick; did you mean trainer-0?"),
        (["--pod", "xyz"], "--pod: xyz is not a pod of quick; use one of trainer-0, rollout-0"),
        (["--pod", "xyz", "-f"], "--pod: xyz is not a pod of quick; use one of trainer-0, rollout-0"),
        (["--since", "soon"], "--since: soon is not a duration; write it like 45s, 10m or 1h30m"),
        (["--since", ""], "--since:  is not a duration; write it like 45s, 10m or 1h30m"),
    ],
)
def test_a_wrong_choice_is_bad_input(server: FakeApiServer, words: list[str], said: str) -> None:
    two_pods(server, RUNNING)
    result = seele("logs", "quick", *words)

    assert (result.exit_code, result.stdout, result.stderr) == (2, "", f"{said}\n")


def test_a_pod_that_has_not_started_says_what_it_waits_for(server: FakeApiServer) -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    server.pods = [
        pod_body("trainer", 0, scheduled=unschedulable),
        pod_body("trainer", 1, waiting("ImagePullBackOff", "Back-off pulling image seele:9")),
    ]
    result = seele("logs", "quick")

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.splitlines() == [
        "trainer-0 │ waiting: Unschedulable: 0/3 nodes",
        "trainer-1 │ waiting: ImagePullBackOff: Back-off pulling image seele:9",
    ]


def test_a_run_whose_pods_are_gone_has_no_logs(server: FakeApiServer) -> None:
    server.runs["quick"] = run_body(phase="Succeeded", attempt=1)
    result = seele("logs", "quick")

    assert result.exit_code == 1
    assert "its pods are gone, and their logs with them" in result.stderr


def test_only_the_newest_attempt_is_shown(server: FakeApiServer) -> None:
    server.pods = [pod_body("trainer", 0, ended(1)), pod_body("trainer", 1, RUNNING, attempt=2)]
    server.write("quick-trainer-0", "trainer", (T0, "old"), ended=True)
    server.write("quick-trainer-1", "trainer", (T1, "new"))

    assert seele("logs", "quick").stdout == "trainer-1 │ new\n"


def test_a_log_that_the_kubelet_does_not_give_is_named_and_the_others_are_shown(server: FakeApiServer) -> None:
    two_pods(server, RUNNING)
    server.refusals["quick-rollout-0/log"] = lambda: status(500, "InternalError", "dial tcp node-1:10250: no route")
    result = seele("logs", "quick")

    assert result.exit_code == 1
    assert "trainer-0               │ step 2" in result.stdout
    assert "rollout-0               │ the API server cannot get pods/log" in result.stderr
    assert "no route" in result.stderr


def test_logs_that_are_forbidden_are_one_line(server: FakeApiServer) -> None:
    two_pods(server, RUNNING)
    server.refusals["/log"] = lambda: status(403, "Forbidden", 'User "eve" cannot get pods/log')

    for words in (["logs", "quick"], ["logs", "quick", "-f"]):
        result = seele(*words)
        assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
        assert result.stderr.startswith("forbidden: get pods/log in namespace default: ")


def test_following_ends_with_the_run(server: FakeApiServer) -> None:
    following = followed(server, (T0, "one"))
    server.write("quick-trainer-0", "trainer", (T1, "two"))
    server.write("quick-trainer-0", "trainer", (T2, "three"), ended=True)
    finish(server)
    result = following.end()

    assert result.exit_code == 0
    assert result.stdout.splitlines() == ["trainer-0 │ one", "trainer-0 │ two", "trainer-0 │ three"]
    assert result.stderr.splitlines() == ["quick: Succeeded"]


def test_after_a_broken_connection_no_line_is_shown_twice(server: FakeApiServer) -> None:
    following = followed(server, (T0, "a"), (T1, "b"), (T1, "c"))
    log = server.log("quick-trainer-0", "trainer")
    for number in (1, 2):
        wait_for(lambda number=number: len(log.requests) >= number and log.connections, "the log is followed")
        server.break_connections("quick-trainer-0", "trainer")
    wait_for(lambda: len(log.requests) > 2 and log.connections, "the log is followed again")
    server.write("quick-trainer-0", "trainer", (T1, "d"), (T2, "e"), ended=True)
    finish(server)
    result = following.end()

    assert result.stdout.splitlines() == [f"trainer-0 │ {letter}" for letter in "abcde"]
    assert "2026-11-22T10:00:01Z" in [request.get("sinceTime") for request in log.requests]


def test_pods_of_a_new_attempt_are_shown_from_their_beginning(server: FakeApiServer) -> None:
    following = followed(server, (T0, "old"), (T0, "first"), words=("--tail", "1"))
    log = server.log("quick-trainer-0", "trainer")
    server.write("quick-trainer-0", "trainer", (T1, "dying"), ended=True)
    server.change(lambda: server.pods.clear())

    def restart() -> None:
        # The pod of the next attempt has the same name and a log of its own.
        del server.logs["quick-trainer-0", "trainer"]
        server.pods.append(pod_body("trainer", 0, waiting("ContainerCreating"), attempt=2))
        server.runs["quick"] = run_body(phase="Starting", attempt=2, message="2 of 3 pods")

    wait_for(lambda: not log.connections, "the old log is at its end")
    server.change(restart)
    server.write("quick-trainer-0", "trainer", (T2, "second"), (T3, "more"), ended=True)
    finish(server, "Failed", attempt=2)
    result = following.end()

    assert result.stdout.splitlines() == [f"trainer-0 │ {line}" for line in ("first", "dying", "second", "more")]
    assert "── attempt 2 ──" in result.stderr
    assert "quick: Failed" in result.stderr


def test_following_waits_for_pods_that_do_not_exist_yet(server: FakeApiServer) -> None:
    server.runs["quick"] = run_body(phase="Pending", attempt=0)
    following = Following("--pod", "trainer-0")

    server.change(lambda: server.pods.append(pod_body("trainer", 0, waiting("ContainerCreating"))))
    server.change(lambda: server.pods.append(pod_body("rollout", 0, RUNNING)))
    server.write("quick-rollout-0", "rollout", (T0, "not wanted"))
    server.write("quick-trainer-0", "trainer", (T0, "here"), ended=True)
    finish(server)

    assert following.end().stdout == "trainer-0 │ here\n"


def test_following_continues_while_the_api_server_is_down(server: FakeApiServer) -> None:
    following = followed(server, (T0, "a"))
    asked: list[int] = []

    def down() -> web.Response:
        asked.append(1)
        return status(503, "ServiceUnavailable", "the server is restarting")

    server.change(lambda: server.refusals.update(quick=down))
    wait_for(lambda: len(asked) > 3, "the run is read while the server is down")
    server.change(server.refusals.clear)
    server.write("quick-trainer-0", "trainer", (T1, "b"), ended=True)
    finish(server)
    result = following.end()

    assert result.stdout.splitlines() == ["trainer-0 │ a", "trainer-0 │ b"]
    assert result.stderr.count("retrying") == 1
    assert "answers again" in result.stderr


def test_following_ends_when_the_run_is_deleted(server: FakeApiServer) -> None:
    following = followed(server, (T0, "a"))
    server.change(server.runs.clear)
    server.change(server.pods.clear)
    server.write("quick-trainer-0", "trainer", (T1, "b"), ended=True)
    result = following.end()

    assert result.stdout.splitlines() == ["trainer-0 │ a", "trainer-0 │ b"]
    assert "quick: was deleted" in result.stderr


def test_ctrl_c_ends_quietly(server: FakeApiServer) -> None:
    server.pods = [pod_body("trainer", 0, RUNNING)]
    server.write("quick-trainer-0", "trainer", (T0, "a"))
    command = [sys.executable, "-m", "seele_operator.cli", "logs", "quick", "-f"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "trainer-0 │ a\n"
        process.send_signal(signal.SIGINT)
        assert (process.stdout.read(), process.stderr.read()) == ("", "")
        assert process.wait(10) == 130


def test_a_server_that_runs_on_after_the_end_is_left_alone(
    server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "QUIET_SECONDS", 0.1)
    server.pods = [pod_body("rollout", 0, RUNNING)]
    server.write("quick-rollout-0", "rollout", (T0, "serving"))
    server.runs["quick"] = run_body(phase="Succeeded", attempt=1)

    assert Following().end().stdout == "rollout-0 │ serving\n"
