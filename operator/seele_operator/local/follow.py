"""What the user sees of running pods: their logs, and trainer 0's /progress."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import aiohttp
from pydantic import ValidationError

from seele_operator.local.display import Display
from seele_operator.local.logs import Follower
from seele_operator.local.ports import HOST
from seele_operator.local.translate import LocalPod
from seele_trainer.records import Progress

LOG_PERIOD = 0.25
PROGRESS_PERIOD = 0.5
PROGRESS_TIMEOUT = aiohttp.ClientTimeout(total=5)


async def follow_logs(pods: Sequence[tuple[LocalPod, Path]], display: Display) -> None:
    """Hand new lines of the pods' logs to the display, from now on and until cancelled, the last ones included."""
    followers = [(pod, Follower(path, position=path.stat().st_size if path.exists() else 0)) for pod, path in pods]
    try:
        while True:
            _forward(followers, display)
            await asyncio.sleep(LOG_PERIOD)
    finally:
        _forward(followers, display)


async def follow_progress(pods: Sequence[LocalPod], http: aiohttp.ClientSession, display: Display) -> None:
    """Ask trainer 0 where the run stands, until cancelled."""
    first = next((pod for pod in pods if pod.role == "trainer" and pod.index == 0 and "metrics" in pod.ports), None)
    if first is None:
        return
    url = f"http://{HOST}:{first.ports['metrics']}/progress"
    while True:
        progress = await _ask(url, http)
        if progress is not None:
            display.progress(progress)
        await asyncio.sleep(PROGRESS_PERIOD)


async def _ask(url: str, http: aiohttp.ClientSession) -> Progress | None:
    try:
        async with http.get(url, timeout=PROGRESS_TIMEOUT) as answer:
            return Progress.model_validate_json(await answer.read()) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValidationError):
        # Not up yet, busy or gone: the pod's own probes decide what that means.
        return None


def _forward(followers: Sequence[tuple[LocalPod, Follower]], display: Display) -> None:
    for pod, follower in followers:
        for line in follower.lines():
            display.line(pod, line)
