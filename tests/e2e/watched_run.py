"""`make quickstart` under the eyes of a real Prometheus, once for all tests that look at it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.e2e.runs import finish, records, start_quickstart
from tests.support.prometheus_server import RULES, Job, PrometheusServer, ScrapeTargets

STEPS = 60
CHECKPOINTS = 20
"""Steps from one to the next."""
LABELS = {"namespace": "local", "run": "quickstart", "attempt": "1", "pod": "quickstart-trainer-0"}
"""What the scrape configurations for clusters take from the pod, here by hand."""
PATHS = {"seele-trainer": "/metrics", "seele-rollout": "/rollout/metrics"}
"""Path on the trainer's port, by job."""
EVERY = {"seele-trainer": 1, "seele-rollout": 4}
"""Seconds between scrapes: on a busy machine a server that generates needs one or two to answer with its 200 kB."""
SECONDS = 800.0


@dataclass
class QuickstartRun:
    """A run that is over, and what Prometheus saw of it."""

    out: Path
    """Folder of the run."""
    prometheus: PrometheusServer
    """Still there to be asked. The run's targets are gone: ask for moments between `began` and `ended`."""
    began: float
    """When the trainer was scraped first, in seconds since the epoch."""
    ended: float = 0.0
    """When the trainer was scraped last."""
    exit_code: int = -1
    expositions: dict[str, str] = field(default_factory=dict)
    """What the trainer answered to a scrape in the middle of the run, by job."""


def watched_quickstart(folder: Path, closing: ExitStack) -> QuickstartRun:
    """Run the quickstart as the README says, with Prometheus attached; `closing` ends Prometheus."""
    targets = {job: ScrapeTargets(folder / f"{job}.json") for job in PATHS}
    jobs = [Job(job, targets[job], path, EVERY[job]) for job, path in PATHS.items()]
    prometheus = closing.enter_context(PrometheusServer(folder / "prometheus", jobs, [RULES]))
    watched = QuickstartRun(folder / "run", prometheus, time.time())
    process = start_quickstart(watched.out)
    address = ""
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if not address and (address := _address(process.pid)):
            watched.began = time.time()
            for one in targets.values():
                one.write(address, **LABELS)
        if not watched.expositions and len(records(watched.out, "metrics.jsonl")) >= STEPS // 2:
            watched.expositions.update(_asked(address))
        time.sleep(0.5)
    watched.exit_code = finish(process, watched.out, seconds=1)
    for one in targets.values():
        one.clear()
    (last,) = prometheus.query('max(max_over_time(timestamp(up{job="seele-trainer"} == 1)[1h:1s]))')
    watched.ended = last.value
    return watched


def _address(runner: int) -> str:
    """Where the run's first trainer serves its telemetry; empty while there is none."""
    for process in psutil.Process(runner).children(recursive=True):
        try:
            environment, command = process.environ(), process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if "train" in command and "SEELE_HTTP_PORT" in environment:
            return f"{environment['SEELE_BIND_HOST']}:{environment['SEELE_HTTP_PORT']}"
    return ""


def _asked(address: str) -> Mapping[str, str]:
    return {job: requests.get(f"http://{address}{path}", timeout=30).text for job, path in PATHS.items()}
