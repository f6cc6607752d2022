"""Servers that tests start are stopped if they do not become ready."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support import played_fleet, prometheus_server
from tests.support.played_fleet import PlayedFleet
from tests.support.prometheus_server import PrometheusServer


def test_a_prometheus_that_does_not_become_ready_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary = tmp_path / "prometheus"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    monkeypatch.setattr(prometheus_server, "prometheus_binaries", lambda: tmp_path)
    monkeypatch.setattr(prometheus_server, "START_SECONDS", 0.0)
    server = PrometheusServer(tmp_path / "data", [])

    with pytest.raises(AssertionError, match="Prometheus is ready"), server:
        pass
    assert server._process is not None
    assert server._process.poll() is not None


def test_a_played_fleet_whose_operator_is_not_scraped_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = []

    def never(*_: Any) -> None:
        raise AssertionError("not within 60 s")

    monkeypatch.setattr(PrometheusServer, "__enter__", lambda server: server)
    monkeypatch.setattr(PrometheusServer, "__exit__", lambda server, *_: stopped.append(server))
    monkeypatch.setattr(played_fleet, "wait_for", never)
    operator: Any = SimpleNamespace(url="http://127.0.0.1:1")
    fleet = PlayedFleet(operator, tmp_path)

    with pytest.raises(AssertionError, match="not within"), fleet:
        pass
    assert stopped == [fleet.prometheus]
    assert not fleet._thread.is_alive()
