"""The pool of rollout servers: load, retries, and weights that are verified before use."""

import asyncio
import logging

import pytest
from aiohttp import web

from seele_trainer.rollout.pool import VllmPool
from seele_trainer.rollout.protocol import RolloutUnavailable, Sampling, WeightSyncError
from seele_trainer.rollout.vllm_client import RequestRefused, ServerFailed, VllmServer, open_session
from tests.support.fake_vllm import INITIAL_NUMBER, FakeVllm
from tests.support.rollout_pool import CONFIG, SAMPLING, canary_of, decoy_of, folder_with, until


@pytest.fixture
def servers(servers: list[FakeVllm]) -> list[FakeVllm]:
    return servers[:2]


async def ready(pool: VllmPool) -> None:
    await until(lambda: all(server.state == "ready" for server in pool._servers.listed), "all servers ready")


async def test_completions_come_with_tokens_logprobs_and_the_version_served(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers)
    assert {one.policy_version for one in await pool.generate([1, 2], SAMPLING)} == {0}
    await pool.update_weights(folder_with(3, tmp_path), 5, canary_of(3))
    completions = await pool.generate([1, 2], SAMPLING)
    assert len(completions) == 4
    assert all(one.policy_version == 5 and set(one.logprobs) == {-3.0} for one in completions)
    assert all(len(one.tokens) == len(one.logprobs) for one in completions)


async def test_the_same_seed_gives_the_same_completions_and_another_seed_others(servers, make_pool) -> None:
    pool = await make_pool(*servers)
    first = await pool.generate([1, 2], SAMPLING)
    again = await pool.generate([1, 2], SAMPLING)
    neighbour = await pool.generate([1, 2], Sampling(4, 8, 1.0, seed=8))
    assert first == again
    assert not {one.tokens for one in first} & {one.tokens for one in neighbour}


async def test_requests_override_a_models_generation_settings(servers, make_pool) -> None:
    pool = await make_pool(*servers[:1])
    await pool.generate([1], SAMPLING)
    body = servers[0].bodies[-1]
    assert (body["top_p"], body["top_k"], body["min_p"], body["repetition_penalty"]) == (1.0, 0, 0.0, 1.0)
    assert body["return_token_ids"] is True


async def test_load_is_spread_over_servers(servers, make_pool) -> None:
    pool = await make_pool(*servers)
    gate = asyncio.Event()
    before = [server.requests["completions"] for server in servers]
    for server in servers:
        server.held = gate
    requests = [asyncio.create_task(pool.generate([i], SAMPLING)) for i in range(10)]
    arrived = [lambda i=i: servers[i].requests["completions"] - before[i] == 5 for i in (0, 1)]
    await until(lambda: all(one() for one in arrived), "five requests at each server")
    gate.set()
    await asyncio.gather(*requests)
    assert pool.counts.ok == 10
    assert sorted(pool.counts.by_server.values()) == [5, 5]


async def test_a_failing_servers_requests_are_answered_by_the_other(servers, make_pool) -> None:
    pool = await make_pool(*servers)
    servers[0].failing = True
    completions = await asyncio.gather(*(pool.generate([i], SAMPLING) for i in range(20)))
    assert all(len(group) == 4 for group in completions)
    assert pool.counts.retried >= 1
    assert pool.counts.failed == 0
    assert pool.counts.ok + pool.counts.retried == 20


async def test_a_request_that_takes_too_long_is_retried_elsewhere(servers, make_pool) -> None:
    pool = await make_pool(*servers, config=CONFIG.model_copy(update={"request_timeout_seconds": 0.2}))
    servers[0].silent = True
    await asyncio.gather(*(pool.generate([i], SAMPLING) for i in range(4)))
    assert pool.counts.retried >= 1


async def test_a_server_that_died_is_used_again_only_with_the_current_weights(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers[:1])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    await servers[0].stop()
    request = asyncio.create_task(pool.generate([1], SAMPLING))
    await until(lambda: pool._servers.listed[0].state == "down", "the pool noticing")
    await servers[0].start()
    assert servers[0].number == INITIAL_NUMBER
    completions = await request
    assert {one.logprobs[0] for one in completions} == {-3.0}
    assert {one.policy_version for one in completions} == {1}


async def test_a_restart_that_no_probe_saw_is_detected_before_its_completions_are_used(
    servers, make_pool, tmp_path
) -> None:
    pool = await make_pool(*servers[:1], probe_seconds=3600)
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    await pool.generate([1], SAMPLING)
    await servers[0].restart()
    completions = await pool.generate([1], SAMPLING)
    assert {one.logprobs[0] for one in completions} == {-3.0}
    assert servers[0].requests["reload"] == 2


async def test_an_idle_server_that_was_restarted_is_updated_without_a_request(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers[:1])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    await servers[0].restart()
    await until(lambda: servers[0].number == 3, "the server getting the current weights")
    await ready(pool)


async def test_a_server_that_comes_up_late_gets_the_weights_first(servers, make_pool, tmp_path) -> None:
    late = servers[1]
    await late.stop()
    pool = await make_pool(*servers, ready=1)
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    await late.start()
    await until(lambda: pool._servers.listed[1].state == "ready", "the late server joining")
    assert late.number == 3


async def test_an_update_reaches_every_server_and_proves_it(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers)
    sync = await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4))
    assert [server.number for server in servers] == [4, 4]
    assert (sync.version, sync.engines, sync.canary_difference) == (2, 2, 0.0)
    assert [server.paused for server in servers] == [False, False]


async def test_a_server_that_answers_200_and_serves_old_weights_stops_the_run(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers)
    servers[1].stale = True
    with pytest.raises(WeightSyncError, match=f"{servers[1].url}.*off by 3"):
        await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4))
    with pytest.raises(WeightSyncError):
        await pool.generate([1], SAMPLING)


async def test_a_server_that_loads_nothing_is_detected_by_the_decoy(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers)
    servers[1].stale = True
    with pytest.raises(WeightSyncError, match=f"{servers[1].url} does not serve the weights that it is given"):
        # What it serves already.
        await pool.update_weights(
            folder_with(INITIAL_NUMBER, tmp_path), 0, canary_of(INITIAL_NUMBER, decoy_of(9, tmp_path))
        )


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_a_server_that_keeps_weights_within_the_tolerance_stops_the_run(
    servers, make_pool, tmp_path, step
) -> None:
    pool = await make_pool(*servers)
    decoy = decoy_of(9, tmp_path)
    for version in range(step):
        number = 1 + version / 1000
        sync = await pool.update_weights(folder_with(number, tmp_path), version, canary_of(number, decoy))
        assert (sync.engines, sync.unproven) == (2, 0)
    servers[1].stale = True
    number = 1 + step / 1000
    with pytest.raises(WeightSyncError, match=f"{servers[1].url} was given the weights of version {step} and still"):
        await pool.update_weights(folder_with(number, tmp_path), step, canary_of(number, decoy))


async def test_every_new_process_of_a_server_proves_that_it_loads_weights(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers[:1])
    decoy = decoy_of(9, tmp_path)
    for number in (3, 4):
        await pool.update_weights(folder_with(number, tmp_path), number, canary_of(number, decoy))
    assert servers[0].loaded == [9, 3, 4]
    await servers[0].restart()
    await until(lambda: servers[0].loaded == [9, 4], "the decoy and the current weights")
    await ready(pool)


async def test_a_server_whose_update_failed_half_way_gets_the_decoy_again(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers)
    decoy = decoy_of(9, tmp_path)
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3, decoy))
    servers[1].keeps_cache = True
    await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4, decoy))
    servers[1].keeps_cache = False
    await ready(pool)
    assert servers[1].loaded[-2:] == [9, 4]


@pytest.mark.parametrize("failure", ["reload_status", "keeps_cache", "stuck_paused"])
async def test_a_server_that_fails_an_update_is_left_out_and_updated_later(
    servers, make_pool, tmp_path, failure
) -> None:
    pool = await make_pool(*servers)
    healthy = getattr(servers[1], failure)
    setattr(servers[1], failure, 500 if failure == "reload_status" else True)
    sync = await pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4))
    assert sync.engines == 1
    assert servers[1].requests["resume"] >= 1
    assert pool._servers.listed[1].state == "down"
    completions = await asyncio.gather(*(pool.generate([i], SAMPLING) for i in range(8)))
    assert {one.logprobs[0] for group in completions for one in group} == {-4.0}
    setattr(servers[1], failure, healthy)
    await ready(pool)
    assert servers[1].number == 4
    assert not servers[1].paused


async def test_a_server_is_resumed_though_its_connection_broke_and_the_error_is_the_reloads(servers, tmp_path) -> None:
    servers[0].reload_status = 500
    servers[0].drops_next_resume = True
    async with open_session() as session:
        with pytest.raises(ServerFailed, match="cannot reload"):
            await VllmServer(servers[0].url, session, "seele").load_weights(folder_with(4, tmp_path), seconds=5)
    assert servers[0].requests["resume"] == 2
    assert not servers[0].paused


async def test_an_update_waits_for_requests_in_flight_which_keep_their_version(servers, make_pool, tmp_path) -> None:
    pool = await make_pool(*servers[:1])
    await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))
    servers[0].held = asyncio.Event()
    before = servers[0].requests["completions"]
    request = asyncio.create_task(pool.generate([1], SAMPLING))
    await until(lambda: servers[0].requests["completions"] > before, "the request arriving")
    updated = asyncio.create_task(pool.update_weights(folder_with(4, tmp_path), 2, canary_of(4)))
    later = asyncio.create_task(pool.generate([1], SAMPLING))
    await until(lambda: pool._servers.listed[0].state == "updating", "the update beginning")
    assert servers[0].requests["reload"] == 1
    servers[0].held.set()
    assert {(one.policy_version, one.logprobs[0]) for one in await request} == {(1, -3.0)}
    await updated
    assert {(one.policy_version, one.logprobs[0]) for one in await later} == {(2, -4.0)}


async def test_short_logprobs_are_an_error_that_names_the_server(servers, make_pool) -> None:
    pool = await make_pool(*servers[:1], config=CONFIG.model_copy(update={"server_retry_timeout_seconds": 0.3}))
    servers[0].short_logprobs = True
    with pytest.raises(RolloutUnavailable, match=rf"{servers[0].url} returned .* tokens with .* log-probabilities"):
        await pool.generate([1], SAMPLING)
    assert pool.counts.failed == 1


async def test_when_no_server_comes_back_the_error_names_them_all_and_why(servers, make_pool) -> None:
    pool = await make_pool(*servers, config=CONFIG.model_copy(update={"server_retry_timeout_seconds": 0.5}))
    for server in servers:
        await server.stop()
    with pytest.raises(RolloutUnavailable, match=r"no rollout server came back within 0\.5 s") as raised:
        await pool.generate([1], SAMPLING)
    assert all(server.url in str(raised.value) for server in servers)
    assert "Connect" in str(raised.value)


async def test_when_no_server_starts_the_error_says_so(make_pool) -> None:
    absent = FakeVllm()
    absent.port = 9
    with pytest.raises(RolloutUnavailable, match=r"no rollout server came up within 0.3 s.*127\.0\.0\.1:9"):
        await make_pool(absent, config=CONFIG.model_copy(update={"server_start_timeout_seconds": 0.3}))


@pytest.mark.parametrize("route", ["/weight_info", "/update_weight_version"])
@pytest.mark.parametrize(
    ("version", "words"),
    [
        (
            "0.26.0",
            r"is vLLM 0\.26\.0, which has no {route}: training needs vLLM 0\.32 or later, started with VLLM_SERVER",
        ),
        (
            "0.32.0",
            r"is vLLM 0\.32\.0 without its routes for training \({route}\): start it with VLLM_SERVER_DEV_MODE=1$",
        ),
        ("1.0.1.dev3+g1", r"is vLLM 1\.0\.1\.dev3\+g1 without its routes"),
        (None, r"is a server of unknown version, which has no {route}: training needs vLLM 0\.32 or later"),
    ],
)
async def test_a_server_without_the_routes_for_training_is_refused_at_once(
    make_pool, tmp_path, route: str, version: str | None, words: str
) -> None:
    async def missing(_: web.Request) -> web.Response:
        raise web.HTTPNotFound

    server = FakeVllm()
    server.version = version
    if route == "/weight_info":
        server._weight_info = missing  # type: ignore[method-assign]
    else:
        server._label = missing  # type: ignore[method-assign]
    await server.start()

    async def first_push() -> None:
        pool = await make_pool(server)
        await pool.update_weights(folder_with(3, tmp_path), 1, canary_of(3))

    try:
        with pytest.raises(RequestRefused, match=words.format(route=route)) as raised:
            await first_push()
        assert "\n" not in str(raised.value)
    finally:
        await server.stop()


async def test_greedy_batches_share_requests_and_sampled_ones_have_their_own_seeds(servers, make_pool) -> None:
    pool = await make_pool(*servers)
    prefixes = [[i] for i in range(50)]
    for server in servers:
        server.bodies.clear()
    greedy = await pool.generate_batch(prefixes, Sampling(2, 8, 0.0, seed=1))
    bodies = [body for server in servers for body in server.bodies]
    assert len(bodies) == 2
    assert all(body["n"] == 1 for body in bodies)
    assert [len(group) for group in greedy] == [2] * 50
    one_by_one = [(await pool.generate(prefix, Sampling(2, 8, 0.0, seed=1)))[0].tokens for prefix in prefixes]
    assert [group[0].tokens for group in greedy] == one_by_one

    for server in servers:
        server.seeds.clear()
    sampled = await pool.generate_batch(prefixes, Sampling(2, 8, 0.6, seed=1))
    seeds = [seed for server in servers for seed in server.seeds]
    assert len(set(seeds)) == 50
    assert sampled == await pool.generate_batch(prefixes, Sampling(2, 8, 0.6, seed=1))


async def test_waiting_for_servers_is_logged(make_pool, caplog, monkeypatch) -> None:
    monkeypatch.setattr("seele_trainer.rollout.pool._PROGRESS_SECONDS", 0.05)
    absent = FakeVllm()
    absent.port = 9
    with caplog.at_level(logging.INFO), pytest.raises(RolloutUnavailable):
        await make_pool(absent, config=CONFIG.model_copy(update={"server_start_timeout_seconds": 0.4}))
    assert any("waiting for rollout servers" in message for message in caplog.messages)
