"""Polling trainers: which ones, how often, and which answers lead to a pass over the run."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from seele_operator.controller.progress import (
    WORTH_SECONDS,
    Poller,
    ProgressBoard,
    Trainer,
    parse_progress,
    trainers_to_poll,
)
from seele_operator.controller.store import RunKey, Store
from seele_operator.observe.trainer import ProgressSeen
from seele_operator.plan import names
from tests.support.raw_pods import run_pod
from tests.support.waiting import Clock

Body = dict[str, Any]
SEEN = ProgressSeen(attempt=1, step=3, steps=10, phase="train", reward=0.5, eta_seconds=70.0, last_checkpoint_step=2)


def run_body(name: str = "first", phase: str = "Running", attempt: int = 1) -> Body:
    return {
        "metadata": {"namespace": "lab", "name": name, "uid": f"uid-{name}", "resourceVersion": "1"},
        "spec": {},
        "status": {"phase": phase, "attempt": attempt},
    }


def pod_body(
    name: str = "first",
    role: str = "trainer",
    index: int = 0,
    attempt: int = 1,
    ip: str | None = "10.0.0.7",
    **more: Any,
) -> Body:
    status = {"phase": "Running", **({"podIP": ip} if ip else {}), **more}
    return run_pod(name, role, index, attempt=attempt, controller=f"uid-{name}", status=status)


def store_of(*bodies: Body) -> Store:
    store = Store()
    for body in bodies:
        _ = store.put_run(body) if "attempt" in body.get("status", {}) else store.put_pod(body)
    return store


def test_trainer_0_of_an_active_run_is_polled() -> None:
    store = store_of(run_body(), pod_body(), pod_body(index=1), pod_body(role="rollout"))
    assert list(trainers_to_poll(store)) == [Trainer(RunKey("lab", "first"), "uid-first", 1, "10.0.0.7")]


@pytest.mark.parametrize(
    ("run", "pod"),
    [
        (run_body(phase="Succeeded"), pod_body()),
        (run_body(phase="Failed"), pod_body()),
        (run_body(attempt=2), pod_body(attempt=1)),
        (run_body(), pod_body(ip=None)),
        (run_body(), pod_body(phase="Pending")),
        (run_body(), pod_body(phase="Succeeded")),
    ],
)
def test_others_are_not_polled(run: Body, pod: Body) -> None:
    assert list(trainers_to_poll(store_of(run, pod))) == []


def test_ipv6_addresses_are_written_in_brackets() -> None:
    assert Trainer(RunKey("lab", "first"), "u", 1, "fd00::7").url == f"http://[fd00::7]:{names.METRICS_PORT}/progress"


def test_all_fields_of_an_answer_are_read() -> None:
    answer = {
        "attempt": 2,
        "step": 7,
        "steps": 20,
        "phase": "rollout",
        "reward": 0.25,
        "accuracy": 0.5,
        "hintRate": 0.3,
        "policyVersion": 7,
        "etaSeconds": 12.5,
        "lastCheckpointStep": 5,
        "message": "round 2 of 4",
        "somethingNew": [1, 2],
    }
    assert parse_progress(json.dumps(answer).encode(), attempt=9) == ProgressSeen(
        attempt=2,
        step=7,
        steps=20,
        phase="rollout",
        reward=0.25,
        accuracy=0.5,
        hint_rate=0.3,
        policy_version=7,
        eta_seconds=12.5,
        last_checkpoint_step=5,
        message="round 2 of 4",
    )


def test_an_answer_without_an_attempt_has_that_of_its_pod() -> None:
    seen = parse_progress(b'{"step": 1, "steps": 2}', attempt=3)
    assert seen is not None
    assert seen.attempt == 3


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"not json",
        b"[]",
        b'"step"',
        b"{}",
        b'{"step": 1}',
        b'{"step": "1", "steps": 2}',
        b'{"step": -1, "steps": 2}',
        b'{"step": 1' + b"0" * 400 + b', "steps": 2}',
        b"[" * 60_000,
        b'{"name": "second", "step": 1, "steps": 2}',
    ],
)
def test_other_answers_are_ignored(answer: bytes) -> None:
    assert parse_progress(answer, attempt=1, run="first") is None


def test_invalid_numbers_are_omitted() -> None:
    seen = parse_progress(b'{"step": 1, "steps": 2, "reward": NaN, "accuracy": Infinity, "etaSeconds": true}', 1)
    assert seen is not None
    assert (seen.reward, seen.accuracy, seen.eta_seconds) == (None, None, None)


def test_fluctuating_numbers_are_reported_only_from_time_to_time() -> None:
    clock = Clock()
    board = ProgressBoard(clock)
    assert board.put("u", SEEN)
    clock.now = 1.0
    assert not board.put("u", replace(SEEN, eta_seconds=69.0, reward=0.6))
    assert board.last("u") == SEEN
    clock.now = WORTH_SECONDS
    assert board.put("u", replace(SEEN, eta_seconds=60.0))
    assert not board.put("u", replace(SEEN, eta_seconds=60.0))


@pytest.mark.parametrize("news", [{"step": 4}, {"phase": "sync"}, {"last_checkpoint_step": 3}, {"attempt": 2}])
def test_a_new_step_phase_checkpoint_or_attempt_is_reported_at_once(news: Body) -> None:
    board = ProgressBoard(Clock())
    board.put("u", SEEN)
    assert board.put("u", replace(SEEN, **news))


def test_deleted_runs_are_forgotten() -> None:
    board = ProgressBoard(Clock())
    board.put("u", SEEN)
    board.put("v", SEEN)
    board.keep_only({"v"})
    assert board.last("u") is None
    assert board.last("v") == SEEN


@asynccontextmanager
async def trainer_at(address: str, port: int, answer: web.Response) -> AsyncIterator[None]:
    async def progress(_: web.Request) -> web.Response:
        return answer

    app = web.Application()
    app.router.add_get("/progress", progress)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
        yield
    finally:
        await runner.cleanup()


async def changed_runs(store: Store, board: ProgressBoard, seconds: float = 5.0) -> list[RunKey]:
    """Poll until a run has changed, or for `seconds`; returns the changed runs."""
    news: list[RunKey] = []
    first = asyncio.Event()

    def on_change(key: RunKey) -> None:
        news.append(key)
        first.set()

    polling = asyncio.create_task(Poller(store, board, on_change).run())
    try:
        await asyncio.wait_for(first.wait(), seconds)
    except TimeoutError:
        pass
    finally:
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    return news


async def test_an_answer_leads_to_a_pass_over_its_run(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "METRICS_PORT", unused_tcp_port)
    store = store_of(run_body(), pod_body(ip="127.0.0.9"), run_body("second"), pod_body("second", ip="127.0.0.10"))
    board = ProgressBoard()
    # The address of the second run does not answer, which delays nothing.
    async with trainer_at("127.0.0.9", unused_tcp_port, web.json_response({"step": 4, "steps": 9})):
        assert await changed_runs(store, board) == [RunKey("lab", "first")]
    seen = board.last("uid-first")
    assert seen is not None
    assert (seen.step, seen.steps, seen.attempt) == (4, 9, 1)


async def test_redirects_are_not_followed(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "METRICS_PORT", unused_tcp_port)
    store = store_of(run_body(), pod_body(ip="127.0.0.11"))
    elsewhere = f"http://127.0.0.12:{unused_tcp_port}/progress"
    away = web.Response(status=302, headers={"Location": elsewhere})
    async with (
        trainer_at("127.0.0.11", unused_tcp_port, away),
        trainer_at("127.0.0.12", unused_tcp_port, web.json_response({"step": 4, "steps": 9})),
    ):
        assert await changed_runs(store, ProgressBoard(), seconds=0.5) == []
