"""How `seele operator` starts and ends: one clear line for a fatal error, and waiting for what will pass."""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from seele_operator.api.events import Refusal
from seele_operator.controller import process as command
from seele_operator.controller.process import OperatorOptions, operator_command
from seele_operator.kube.errors import ClusterUnavailable, Refused
from seele_trainer.termination import ExitCode
from tests.support.control_plane import free_port
from tests.support.fake_cluster import FakeCluster, Request


class ClusterOfTest(FakeCluster):
    """A fake cluster as a context manager."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return


@pytest.fixture(autouse=True)
def own_logging(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore the logging that the command configures for the whole process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> ClusterOfTest:
    fake = ClusterOfTest()

    async def connect(*_: object, **__: object) -> ClusterOfTest:
        return fake

    class NoWatch:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self, started: object) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(command.Cluster, "connect", connect)
    monkeypatch.setattr(command, "Watch", NoWatch)
    monkeypatch.setattr(command, "FIRST_RETRY_SECONDS", 0.01)
    monkeypatch.setattr(command, "CRD_SECONDS", 0.01)
    return fake


def options(**changes: object) -> OperatorOptions:
    return OperatorOptions(http_port=free_port(), leader_election=False, **changes)  # type: ignore[arg-type]


def stop_when(cluster: ClusterOfTest, enough: int, *failures: Exception) -> None:
    """Let the first lists fail with `failures`, and stop the operator after `enough` lists."""
    pending, lists = list(failures), 0

    def before(request: Request) -> None:
        nonlocal lists
        if request[0] != "list":
            return
        lists += 1
        if lists == enough:
            os.kill(os.getpid(), signal.SIGTERM)
        if pending:
            raise pending.pop(0)

    cluster.before = before


def test_sigterm_ends_it_with_0(cluster: ClusterOfTest, capsys: pytest.CaptureFixture[str]) -> None:
    stop_when(cluster, 2)
    assert operator_command(options()) == ExitCode.DONE
    assert "stopped" in capsys.readouterr().err


def test_a_used_port_is_reported_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert operator_command(OperatorOptions(http_port=port)) == ExitCode.FAILED
    [output] = capsys.readouterr().err.splitlines()
    assert f"--http-port {port}" in output


def test_a_missing_kubeconfig_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert operator_command(options()) == ExitCode.FAILED
    [output] = capsys.readouterr().err.splitlines()
    assert "--kubeconfig" in output


def test_a_missing_permission_is_reported_in_one_line(
    cluster: ClusterOfTest, capsys: pytest.CaptureFixture[str]
) -> None:
    words = 'pods is forbidden: User "op" cannot list resource "pods" in API group ""'
    stop_when(cluster, 99, Refused(Refusal("Forbidden", words)))
    assert operator_command(options()) == ExitCode.FAILED
    [output] = capsys.readouterr().err.splitlines()
    assert words in output
    assert "rbac" in output


def test_a_missing_crd_is_waited_for_and_the_remedy_is_logged(
    cluster: ClusterOfTest, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = [Refused(Refusal("Error", "SeeleRun: this cluster does not serve the kind")) for _ in range(3)]
    stop_when(cluster, 5, *missing)
    assert operator_command(options()) == ExitCode.DONE
    output = capsys.readouterr().err
    assert output.count("seele crd | kubectl apply -f -") == 1
    assert "at work" in output


def test_an_outage_at_the_start_is_waited_for_and_logged_once(
    cluster: ClusterOfTest, capsys: pytest.CaptureFixture[str]
) -> None:
    stop_when(cluster, 5, *(ClusterUnavailable("no connection") for _ in range(3)))
    assert operator_command(options()) == ExitCode.DONE
    output = capsys.readouterr().err
    assert output.count("does not answer: no connection") == 1
    assert output.count("the API server answers") == 1


def test_a_watch_that_ends_also_ends_the_operator(
    cluster: ClusterOfTest, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class BrokenWatch:
        def __init__(self, *_: object) -> None:
            pass

        async def run(self, started: object) -> None:
            raise RuntimeError("the watch broke")

    monkeypatch.setattr(command, "Watch", BrokenWatch)
    assert operator_command(options()) == ExitCode.FAILED
    assert "watch ended: the watch broke" in capsys.readouterr().err


def test_the_log_can_be_json(cluster: ClusterOfTest, capsys: pytest.CaptureFixture[str]) -> None:
    stop_when(cluster, 2)
    operator_command(options(log_format="json"))
    entries = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert entries[-1]["message"] == "stopped"
    assert set(entries[-1]) == {"time", "level", "logger", "message"}
