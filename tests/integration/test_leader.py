"""The leader election between real processes on a real API server, with the permissions of manifests/rbac.yaml."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY
from tests.support.control_plane import ControlPlane, die_with_parent
from tests.support.operator_process import NAMESPACE, grant
from tests.support.waiting import wait_for

DURATION = 5
STANDBY_SECONDS = 2.0
"""How much longer than the lease's duration a standby may take."""


class Candidate:
    """A process of lease_candidate.py, and its output so far."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.lines: list[tuple[str, float]] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.lease_candidate", str(kubeconfig), namespace, str(DURATION)],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, *rest = line.split()
            self.lines.append((word, float(rest[0]) if rest else 0.0))

    def times(self, word: str) -> list[float]:
        return [when for found, when in list(self.lines) if found == word]

    def wait_until_it_prints(self, word: str, seconds: float = 60.0) -> float:
        wait_for(lambda: self.times(word), f"a candidate prints {word}", seconds)
        return self.times(word)[0]

    def end(self) -> None:
        """Kill it, and read the rest of its output."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)


@pytest.fixture
def kubeconfig(quiet_control_plane: ControlPlane) -> Path:
    return grant(quiet_control_plane, "rbac.yaml", account="seele-operator-leader")


@pytest.fixture
def candidate(kubeconfig: Path, quiet_control_plane: ControlPlane) -> Iterator[Callable[[], Candidate]]:
    quiet_control_plane.admin.delete("leases", "seele-operator", NAMESPACE)
    made: list[Candidate] = []

    def start() -> Candidate:
        made.append(Candidate(kubeconfig, NAMESPACE))
        made[-1].wait_until_it_prints("standby")
        return made[-1]

    yield start
    for one in made:
        one.end()


@pytest.fixture
def pair(candidate: Callable[[], Candidate]) -> tuple[Candidate, Candidate]:
    """A leader, and a standby that has seen its lease."""
    leader = candidate()
    leader.wait_until_it_prints("wrote")
    standby = candidate()
    # The standby has seen the lease once the leader has renewed it a few times.
    seen = len(leader.times("wrote"))
    wait_for(lambda: leader.times("wrote")[-1] > leader.times("wrote")[seen - 1] + 2, "the standby has seen the lease")
    assert not standby.times("leader")
    return leader, standby


def lease(plane: ControlPlane) -> dict[str, Any]:
    stored = plane.admin.get("leases", "seele-operator", NAMESPACE)
    assert stored is not None
    spec: dict[str, Any] = stored["spec"]
    return spec


def assert_never_both(first: Candidate, second: Candidate) -> None:
    """Assert that one of them wrote for the last time before the other wrote for the first time."""
    one, other = sorted((first.times("wrote"), second.times("wrote")))
    assert one[-1] < other[0]


def test_a_killed_leader_is_replaced_within_the_lease(
    quiet_control_plane: ControlPlane, pair: tuple[Candidate, Candidate]
) -> None:
    leader, standby = pair
    leader.process.kill()
    killed = time.monotonic()
    took = standby.wait_until_it_prints("leader") - killed
    assert DURATION * 0.5 < took < DURATION + STANDBY_SECONDS
    standby.wait_until_it_prints("wrote")
    assert_never_both(leader, standby)
    assert lease(quiet_control_plane)["leaseTransitions"] == 1
    assert lease(quiet_control_plane)["leaseDurationSeconds"] == DURATION


def test_a_leader_that_stops_is_replaced_at_once(
    quiet_control_plane: ControlPlane, pair: tuple[Candidate, Candidate]
) -> None:
    leader, standby = pair
    leader.process.terminate()
    released = leader.wait_until_it_prints("released")
    assert standby.wait_until_it_prints("leader") - released < STANDBY_SECONDS
    standby.wait_until_it_prints("wrote")
    assert_never_both(leader, standby)


def test_a_frozen_leader_writes_nothing_when_it_thaws(pair: tuple[Candidate, Candidate]) -> None:
    leader, standby = pair
    leader.process.send_signal(signal.SIGSTOP)
    standby.wait_until_it_prints("wrote")
    leader.process.send_signal(signal.SIGCONT)
    leader.wait_until_it_prints("lost")
    leader.wait_until_it_prints("released")
    assert_never_both(leader, standby)
    # Having lost the lease, it must not have released it.
    wait_for(lambda: standby.times("wrote")[-1] > leader.times("released")[0] + 1, "the other one keeps leading")
    assert not standby.times("lost")


def test_an_outage_pauses_the_leader_but_does_not_replace_it(
    quiet_control_plane: ControlPlane, pair: tuple[Candidate, Candidate]
) -> None:
    leader, standby = pair
    before = lease(quiet_control_plane)
    quiet_control_plane.stop_api_server()
    stopped = time.monotonic()
    try:
        wait_for(lambda: time.monotonic() > leader.times("wrote")[-1] + 1, "the leader pauses", DURATION + 5)
        # Before another candidate could start.
        assert leader.times("wrote")[-1] < stopped + DURATION
        wait_for(lambda: time.monotonic() > stopped + DURATION + STANDBY_SECONDS, "the lease is over", DURATION + 5)
        assert not standby.times("leader")
        assert not leader.times("lost")
    finally:
        quiet_control_plane.start_api_server()
    back = time.monotonic()
    # The standby does not mistake the outage for the end of the leader.
    wait_for(lambda: leader.times("wrote")[-1] > back + DURATION, "the leader continues", 30)
    assert not standby.times("leader")
    assert not leader.times("lost")
    after = lease(quiet_control_plane)
    assert after["holderIdentity"] == before["holderIdentity"]
    assert after["leaseTransitions"] == before["leaseTransitions"]


def test_of_many_candidates_one_leads(candidate: Callable[[], Candidate]) -> None:
    many = [candidate() for _ in range(4)]
    wait_for(lambda: any(one.times("wrote") for one in many), "one of them leads")
    leader = next(one for one in many if one.times("wrote"))
    wait_for(lambda: leader.times("wrote")[-1] > leader.times("wrote")[0] + 2, "it leads for a while")
    assert [one for one in many if one.times("leader")] == [leader]
