"""The servers of the pool while their list changes and their names resolve to other addresses."""

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from seele_trainer.rollout.pool import VllmPool
from seele_trainer.rollout.protocol import RolloutUnavailable
from seele_trainer.rollout.server_set import UrlFile
from seele_trainer.rollout.vllm_client import ServerUnreachable, VllmServer, open_session
from seele_trainer.run_folder.attempt import Superseded
from tests.support.fake_vllm import FakeVllm
from tests.support.rollout_pool import CONFIG, SAMPLING, canary_of, folder_with, until


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., None]:
    """Writes the list of servers as the kubelet does, by a rename."""

    def write(*servers: FakeVllm) -> None:
        fresh = tmp_path / "fresh"
        fresh.write_text("".join(f"{server.url}\n" for server in servers))
        fresh.rename(tmp_path / "rollout-urls")

    return write


def serves(pool: VllmPool, *servers: FakeVllm) -> Callable[[], bool]:
    """Whether exactly these servers are in use."""
    return lambda: {one.url for one in pool._servers.ready} == {server.url for server in servers}


async def request_at(server: FakeVllm, pool: VllmPool) -> asyncio.Task[object]:
    """A request held at a server, which must be the next in turn."""
    server.held = asyncio.Event()
    before = server.requests["completions"]
    task = asyncio.create_task(pool.generate([1], SAMPLING))
    await until(lambda: server.requests["completions"] > before, "the request arriving")
    return task


async def test_a_server_that_is_added_gets_the_weights_first_and_then_its_share_of_the_work(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    for number in range(10):
        await pool.generate([number], SAMPLING)
    listed(servers[0], servers[1])
    await until(serves(pool, servers[0], servers[1]), "the new server joining")
    assert servers[1].number == 3
    before = servers[0].requests["completions"]
    for number in range(10):
        completions = await pool.generate([number], SAMPLING)
        assert {(one.policy_version, one.logprobs[0]) for one in completions} == {(1, -3.0)}
    # Half of the work, not all of it until it has caught up.
    assert servers[0].requests["completions"] - before == 5
    assert pool.counts.by_server == {servers[0].url: 15, servers[1].url: 5}


async def test_the_pool_gives_the_state_of_each_listed_server_in_the_order_of_the_list(
    servers, make_pool, listed
) -> None:
    def states() -> list[tuple[str, str]]:
        return [(server.url, server.state) for server in pool.servers()]

    pool = await make_pool(servers[0], servers[1])
    assert states() == [(servers[0].url, "ready"), (servers[1].url, "ready")]
    await servers[0].stop()
    await until(lambda: states()[0] == (servers[0].url, "down"), "the lost server being listed as down")
    await servers[2].stop()
    listed(servers[2], servers[1], servers[0])
    await until(lambda: [url for url, _ in states()] == [one.url for one in servers[::-1]], "the new list")
    assert [state for _, state in states()] == ["starting", "ready", "down"]
    await servers[2].start()
    await until(lambda: states()[0] == (servers[2].url, "ready"), "the new server being listed as ready")


async def test_a_server_that_is_removed_finishes_its_request_gets_no_other_and_is_forgotten(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0])
    task = await request_at(servers[0], pool)
    listed(servers[1])
    await until(serves(pool, servers[1]), "the change of servers")
    before = servers[0].requests["completions"]
    await asyncio.gather(*(pool.generate([number], SAMPLING) for number in range(4)))
    assert servers[0].requests["completions"] == before
    assert pool.counts.by_server == {servers[1].url: 4}
    assert not task.done()
    servers[0].held.set()
    assert len(await task) == 4
    assert (pool.counts.retried, pool.counts.failed) == (0, 0)
    await until(lambda: not pool._servers._draining, "the removed server forgotten")
    probes = servers[0].requests["health"]
    await until(lambda: servers[1].requests["health"] > probes + 20, "probes of the server that stayed")
    assert servers[0].requests["health"] == probes


async def test_a_removed_server_that_is_killed_costs_a_retry_and_no_warning(servers, make_pool, listed, caplog) -> None:
    listed(servers[0])
    pool = await make_pool(servers[0])
    task = await request_at(servers[0], pool)
    listed(servers[1])
    await until(serves(pool, servers[1]), "the change of servers")
    with caplog.at_level(logging.WARNING):
        await servers[0].stop()
        assert len(await task) == 4
    assert (pool.counts.retried, pool.counts.failed) == (1, 0)
    assert caplog.messages == []


async def test_a_server_that_is_removed_and_listed_again_is_used_again_once_its_requests_are_over(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0], servers[1])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    await pool.generate([0], SAMPLING)
    task = await request_at(servers[1], pool)
    listed(servers[0])
    await until(serves(pool, servers[0]), "the removal")
    # New weights while the removed server drains: its request must not be answered by them.
    await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4))
    listed(servers[0], servers[1])
    await until(lambda: len(pool._servers.listed) == 2, "the return")
    probes = servers[0].requests["health"]
    await until(lambda: servers[0].requests["health"] > probes + 10, "time in which it could have joined")
    assert serves(pool, servers[0])()
    assert servers[1].number == 3
    servers[1].held.set()
    assert {(one.policy_version, one.logprobs[0]) for one in await task} == {(1, -3.0)}
    await until(serves(pool, servers[0], servers[1]), "the server in use again")
    assert servers[1].number == 4
    assert pool.counts.by_server[servers[1].url] == 0


async def test_weights_in_flight_do_not_wait_for_a_server_that_is_removed(servers, make_pool, listed, tmp_path) -> None:
    # Long enough that only the removal can end the reload within the time of this test.
    pool = await make_pool(servers[0], servers[1], config=CONFIG.model_copy(update={"sync_timeout_seconds": 60}))
    servers[1].reload_held = asyncio.Event()
    update = asyncio.create_task(pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3)))
    await until(lambda: servers[1].requests["reload"] == 1, "the reload that hangs")
    listed(servers[0])
    sync = await update
    assert (sync.engines, servers[0].number) == (1, 3)
    await until(lambda: servers[1].requests["resume"] == 1, "the removed server resumed")
    assert not servers[1].paused


async def test_a_server_that_refuses_even_to_resume_is_no_error_once_it_is_removed(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0], servers[1])
    servers[1].reload_held, servers[1].resume_status = asyncio.Event(), 404
    update = asyncio.create_task(pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3)))
    await until(lambda: servers[1].requests["reload"] == 1, "the reload that hangs")
    listed(servers[0])
    await update
    await until(lambda: not pool._servers._draining, "the removed server forgotten")
    assert servers[1].requests["resume"] >= 1
    assert len(await pool.generate([1], SAMPLING)) == 4


async def test_a_server_that_is_added_while_weights_are_in_flight_ends_up_with_the_new_ones(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    servers[1].reload_held = asyncio.Event()
    listed(servers[0], servers[1])
    await until(lambda: servers[1].requests["reload"] == 1, "the new server taking the old weights")
    sync = await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4))
    assert sync.engines == 1
    servers[1].reload_held.set()
    await until(serves(pool, servers[0], servers[1]), "the new server joining")
    assert servers[1].number == 4


async def test_when_all_servers_are_exchanged_while_weights_are_in_flight_the_new_ones_take_them(
    servers, make_pool, listed, tmp_path
) -> None:
    pool = await make_pool(servers[0])
    servers[0].reload_held = asyncio.Event()
    update = asyncio.create_task(pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3)))
    await until(lambda: servers[0].requests["reload"] == 1, "the reload that hangs")
    listed(servers[1], servers[2])
    assert (await update).engines >= 1
    await until(serves(pool, servers[1], servers[2]), "both new servers ready")
    assert (servers[1].number, servers[2].number) == (3, 3)


async def test_a_file_that_vanishes_changes_nothing_and_is_logged_once(
    servers, make_pool, listed, tmp_path, caplog
) -> None:
    listed(servers[0], servers[1])
    pool = await make_pool(servers[0], servers[1])
    with caplog.at_level(logging.WARNING):
        (tmp_path / "rollout-urls").unlink()
        await until(lambda: bool(caplog.messages), "the warning")
        await asyncio.gather(*(pool.generate([number], SAMPLING) for number in range(10)))
        assert serves(pool, servers[0], servers[1])()
        listed(servers[0])
        await until(serves(pool, servers[0]), "the file being followed again")
    assert len(caplog.messages) == 1
    assert "No such file" in caplog.messages[0]


async def test_a_pool_without_urls_finds_its_servers_in_the_file(servers, make_pool, listed) -> None:
    listed(servers[0])
    pool = await make_pool()
    assert serves(pool, servers[0])()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"\n \n", "is empty"),
        (b"http://a:8000\nhtt", "not a URL: 'htt'"),
        (b"http://a:80x0\n", "not a URL"),
        (b"http://\n", "not a URL"),
        (b"\xff\xfe", "is not text"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_not_a_list_of_urls_is_ignored_with_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "urls"
    if content is not None:
        path.write_bytes(content)
    file = UrlFile(path)
    assert [file.poll() for _ in range(5)] == [None] * 5
    assert len(caplog.messages) == 1
    assert complaint in caplog.messages[0]
    path.write_text("http://a:8000\n")
    assert [file.poll() for _ in range(3)] == [None, ("http://a:8000",), None]


def test_a_list_counts_once_it_was_read_twice_so_one_that_is_being_written_does_not(tmp_path: Path) -> None:
    path = tmp_path / "urls"
    path.write_text("http://a:8000\nhttp://b:80")
    file = UrlFile(path)
    assert file.poll() is None
    path.write_text("http://a:8000/\n\nhttp://b:8000\nhttp://a:8000\n")
    assert [file.poll() for _ in range(3)] == [None, ("http://a:8000", "http://b:8000"), None]


class Names(AbstractResolver):
    """A resolver whose names lead to fake servers, or nowhere."""

    def __init__(self, **servers: FakeVllm) -> None:
        self.servers = servers

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        server = self.servers.get(host)
        if server is None:
            raise OSError(None, "Name or service not known")
        address = "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=server.port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None: ...


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    found = Names()
    monkeypatch.setattr("seele_trainer.rollout.pool.open_session", lambda: open_session(found))
    return found


async def test_a_name_that_does_not_resolve_yet_is_a_server_that_is_down(servers, names) -> None:
    async with open_session(names) as session:
        with pytest.raises(ServerUnreachable, match="Name or service not known"):
            await VllmServer("http://zero:8000", session, "seele").health()
    config = CONFIG.model_copy(update={"server_start_timeout_seconds": 0.3})
    pool = VllmPool(["http://zero:8000"], config, probe_seconds=0.05)
    with pytest.raises(RolloutUnavailable, match=r"no rollout server came up within 0.3 s.*not known"):
        await pool.start()
    await pool.close()


async def test_a_server_that_is_replaced_under_its_name_is_found_at_its_new_address(servers, names, tmp_path) -> None:
    names.servers["zero"] = servers[0]
    pool = VllmPool(["http://zero:8000"], CONFIG, probe_seconds=0.05)
    await pool.start()
    try:
        await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
        await servers[0].stop()
        del names.servers["zero"]
        task = asyncio.create_task(pool.generate([1], SAMPLING))
        await until(lambda: "not known" in pool._servers.listed[0].error, "the failed look-up")
        names.servers["zero"] = servers[1]
        assert {one.logprobs[0] for one in await task} == {-3.0}
        assert servers[1].requests["completions"] >= 1
    finally:
        await pool.close()


async def test_requests_on_an_unreachable_machine_are_retried_when_its_name_resolves_elsewhere(
    servers, names, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("seele_trainer.rollout.vllm_client._HEALTH_SECONDS", 0.2)
    names.servers["zero"] = servers[0]
    pool = VllmPool(["http://zero:8000"], CONFIG, probe_seconds=0.05)
    await pool.start()
    try:
        await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
        task = await request_at(servers[0], pool)
        servers[0].lost = True
        names.servers["zero"] = servers[1]
        # Its connection never breaks, and the request's own limit of 5 s is longer than this test waits.
        assert {one.logprobs[0] for one in await asyncio.wait_for(task, 4)} == {-3.0}
        assert servers[1].number == 3
    finally:
        await pool.close()


async def test_requests_on_a_machine_that_stays_unreachable_are_retried_elsewhere(
    servers, make_pool, monkeypatch
) -> None:
    monkeypatch.setattr("seele_trainer.rollout.vllm_client._HEALTH_SECONDS", 0.1)
    monkeypatch.setattr("seele_trainer.rollout.managed_server._LOST_SECONDS", 0.3)
    pool = await make_pool(servers[0], servers[1], url_file=None)
    gate = asyncio.Event()
    servers[0].held = servers[1].held = gate
    before = [server.requests["completions"] for server in servers]
    tasks = [asyncio.create_task(pool.generate([number], SAMPLING)) for number in range(4)]
    await until(lambda: all(servers[i].requests["completions"] == before[i] + 2 for i in (0, 1)), "two at each")
    servers[0].lost = True
    await until(lambda: servers[1].requests["completions"] == before[1] + 4, "all of them at the other")
    gate.set()
    await asyncio.gather(*tasks)
    assert (pool.counts.retried, pool.counts.failed) == (2, 0)


async def test_a_superseded_attempt_pushes_no_weights_to_servers_of_the_newer_one(servers, make_pool, tmp_path) -> None:
    superseded = False

    def check() -> None:
        if superseded:
            raise Superseded("attempt 2 has begun")

    pool = await make_pool(servers[0], before_push=check, url_file=None)
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    superseded = True
    # The newer attempt's pool updates the server. To this pool it looks like a restart, which it would repair.
    servers[0].number, servers[0].label = 4, "another attempt's"
    await until(lambda: pool._servers._fatal is not None, "the pool giving up")
    with pytest.raises(Superseded):
        await pool.generate([1], SAMPLING)
    with pytest.raises(Superseded):
        await pool.update_weights(folder_with(5, tmp_path), 2, canary_of(5))
    assert (servers[0].number, servers[0].requests["reload"]) == (4, 1)
