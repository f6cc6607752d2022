"""The leader election on a lease in memory, with a clock that the tests advance."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from seele_operator.kube import lease as leader
from seele_operator.kube.errors import Answer, ClusterUnavailable
from seele_operator.kube.lease import Leadership

DURATION = 15
WRITES_FOR = 10.0
"""Seconds from a renewal in which a leader may write: two thirds of the lease."""


class LeaseServer:
    """One lease, with optimistic locking and all kinds of outages."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.wall = datetime(2026, 11, 22, tzinfo=UTC)
        self.lease: dict[str, Any] | None = None
        self.version = 0
        self.down = False
        self.forget_answer = False
        self.seconds_per_request = 0.0
        self.before_put: Callable[[], None] = lambda: None

    @property
    def record(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec

    def write(self, **record: Any) -> None:
        """Change the lease on behalf of another candidate."""
        self.version += 1
        spec = {**(self.lease["spec"] if self.lease else {}), **record}
        self.lease = {"metadata": {"name": "l", "resourceVersion": str(self.version)}, "spec": spec}

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Answer:
        self.time += self.seconds_per_request
        await asyncio.sleep(0)
        if method == "PUT":
            self.before_put()
        if self.down:
            raise ClusterUnavailable("connection refused")
        answer = self._answer(method, body)
        if self.forget_answer and method != "GET":
            self.forget_answer = False
            raise ClusterUnavailable("no answer within 5 s")
        return answer

    def _answer(self, method: str, body: Any) -> Answer:
        if method == "POST":
            if self.lease is not None:
                return Answer(409, {"reason": "AlreadyExists"})
            self.write(**body["spec"])
        elif self.lease is None:
            return Answer(404, {"details": {"name": "l", "kind": "leases"}})
        elif method == "PUT":
            if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
                return Answer(409, {"reason": "Conflict"})
            self.write(**body["spec"])
        assert self.lease is not None
        return Answer(200, {**self.lease, "spec": dict(self.lease["spec"])})

    async def close(self) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> LeaseServer:
    monkeypatch.setattr(leader, "CHECK_SECONDS", 0.001)
    return LeaseServer()


@pytest.fixture
async def candidate(server: LeaseServer) -> AsyncIterator[Callable[[str], Leadership]]:
    made: list[Leadership] = []

    def make(identity: str) -> Leadership:
        connection: Any = server
        made.append(
            Leadership(
                connection,
                "ns",
                "l",
                identity=identity,
                duration=DURATION,
                renew_every=0.001,
                clock=lambda: server.time,
                now=lambda: server.wall,
            )
        )
        return made[-1]

    yield make
    for leadership in made:
        await leadership.release()


Candidate = Callable[[str], Leadership]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - conditions of tests set no events
            await asyncio.sleep(0.001)


async def checks(server: LeaseServer, times: int = 20) -> None:
    """Let the candidates check the lease a few times."""
    for _ in range(times):
        await asyncio.sleep(0.001)


async def test_the_first_candidate_creates_the_lease(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    assert not first.valid()
    await first.acquire()
    assert first.valid()
    assert server.record["holderIdentity"] == "a"
    assert server.record["leaseTransitions"] == 0
    assert server.record["leaseDurationSeconds"] == DURATION
    assert server.record["acquireTime"] == "2026-11-22T00:00:00.000000Z"


async def test_validity_counts_from_before_the_request(server: LeaseServer, candidate: Candidate) -> None:
    server.seconds_per_request = 2.0
    first = candidate("a")
    began = server.time
    server.before_put = lambda: setattr(server, "down", True)
    await first.acquire()
    server.time = began + WRITES_FOR - 0.1
    assert first.valid()
    server.time = began + WRITES_FOR
    assert not first.valid()


async def test_renewals_keep_it_valid_and_record_their_time(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    await first.acquire()
    for _ in range(5):
        server.time += WRITES_FOR - 1
        server.wall += timedelta(seconds=9)
        version = server.version
        await until(lambda version=version: server.version > version + 1)
        assert first.valid()
    assert server.record["acquireTime"] == "2026-11-22T00:00:00.000000Z"
    assert server.record["renewTime"] == "2026-11-22T00:00:45.000000Z"
    assert server.record["leaseTransitions"] == 0


async def test_a_lease_that_changes_is_held_whatever_its_times(server: LeaseServer, candidate: Candidate) -> None:
    server.write(holderIdentity="other", leaseDurationSeconds=DURATION, renewTime="1999-01-01T00:00:00.000000Z")
    acquiring = asyncio.create_task(candidate("b").acquire())
    for number in range(5):
        await checks(server)
        server.write(renewTime=f"1999-01-01T00:00:0{number}.000000Z")
        server.time += DURATION - 1
    await checks(server)
    assert not acquiring.done()
    server.time += DURATION
    await acquiring
    assert server.record["holderIdentity"] == "b"


async def test_a_standby_waits_for_the_holders_own_duration(server: LeaseServer, candidate: Candidate) -> None:
    server.write(holderIdentity="other", leaseDurationSeconds=40, leaseTransitions=3)
    acquiring = asyncio.create_task(candidate("b").acquire())
    await checks(server)
    server.time += 39
    await checks(server)
    assert not acquiring.done()
    server.time += 1.1
    await acquiring
    assert server.record["leaseTransitions"] == 4


async def test_an_outage_ends_validity_but_not_leadership(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    await first.acquire()
    server.down = True
    await checks(server)
    assert first.valid()
    server.time += WRITES_FOR
    assert not first.valid()
    server.time += 100
    await checks(server)
    assert not first.lost.is_set()
    server.down = False
    await until(first.valid)
    assert not first.lost.is_set()
    assert server.record["leaseTransitions"] == 0


async def test_a_standby_does_not_count_the_time_of_an_outage(server: LeaseServer, candidate: Candidate) -> None:
    server.write(holderIdentity="other", leaseDurationSeconds=DURATION)
    acquiring = asyncio.create_task(candidate("b").acquire())
    await checks(server)
    server.time += 5
    await checks(server)
    server.down = True
    await checks(server)
    server.time += 100
    await checks(server)
    server.down = False
    await checks(server)
    server.time += DURATION - 5 - 0.1
    await checks(server)
    assert not acquiring.done()
    server.time += 0.2
    await acquiring


async def test_another_holder_ends_leadership_at_once(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    await first.acquire()
    server.write(holderIdentity="b")
    await asyncio.wait_for(first.lost.wait(), 5)
    assert not first.valid()
    version = server.version
    await first.release()
    assert server.version == version, "a lost lease must not be released"


async def test_of_two_candidates_one_becomes_leader(server: LeaseServer, candidate: Candidate) -> None:
    server.write(holderIdentity="dead", leaseDurationSeconds=DURATION)
    both = [candidate("a"), candidate("b")]
    tasks = [asyncio.create_task(one.acquire()) for one in both]
    await checks(server)
    server.time += DURATION + 1
    await until(lambda: any(task.done() for task in tasks))
    await checks(server)
    assert [one.valid() for one in both].count(True) == 1
    assert [task.done() for task in tasks].count(True) == 1
    for task in tasks:
        task.cancel()


async def test_a_released_lease_is_free_at_once(server: LeaseServer, candidate: Candidate) -> None:
    first, second = candidate("a"), candidate("b")
    await first.acquire()
    acquiring = asyncio.create_task(second.acquire())
    await checks(server)
    valid_at_the_end = []
    server.before_put = lambda: valid_at_the_end.append(first.valid())
    await first.release()
    assert valid_at_the_end[-1] is False, "it must not write once others may"
    await asyncio.wait_for(acquiring, 5)
    assert not first.valid()
    assert server.record["holderIdentity"] == "b"
    assert server.record["leaseTransitions"] == 1


async def test_a_renewal_whose_answer_was_lost_does_no_harm(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    server.forget_answer = True
    await first.acquire()
    server.forget_answer = True
    await until(lambda: not server.forget_answer)
    version = server.version
    await until(lambda: server.version > version + 1)
    assert first.valid()
    assert not first.lost.is_set()
    assert server.record["leaseTransitions"] == 0


async def test_a_deleted_lease_is_created_again(server: LeaseServer, candidate: Candidate) -> None:
    first = candidate("a")
    await first.acquire()
    server.lease = None
    await until(lambda: server.lease is not None)
    assert server.record["holderIdentity"] == "a"
    assert not first.lost.is_set()


async def test_a_standby_that_is_stopped_while_it_takes_the_lease_releases_it(
    server: LeaseServer, candidate: Candidate
) -> None:
    server.write(holderIdentity="", leaseDurationSeconds=1)
    first = candidate("a")
    acquiring = asyncio.create_task(first.acquire())
    server.before_put = lambda: (acquiring.cancel(), None)[1]
    await asyncio.gather(acquiring, return_exceptions=True)
    server.before_put = lambda: None
    server.write(holderIdentity="a")  # the request arrived after all
    await first.release()
    assert server.record["holderIdentity"] == ""


async def test_an_unreachable_server_does_not_keep_an_operator_from_exiting(
    server: LeaseServer, candidate: Candidate
) -> None:
    first = candidate("a")
    await first.acquire()
    server.down = True
    await first.release()
    assert not first.valid()
