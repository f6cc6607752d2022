"""`make quickstart`, watched by a real Prometheus, once for all tests that need it."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.e2e.runs import finish, records, start_quickstart
from tests.support.prometheus_server import RULES, Job, PrometheusServer, ScrapeTargets

STEPS = 80
CHECKPOINTS = 20
"""Steps between checkpoints."""
LABELS = {"namespace": "local", "run": "quickstart", "attempt": "1", "pod": "quickstart-trainer-0"}
"""On clusters, the scrape configuration takes these labels from the pod."""
PATHS = {"seele-trainer": "/metrics", "seele-rollout": "/rollout/metrics"}
"""Path on the trainer's port, by job."""
EVERY = {"seele-trainer": 1, "seele-rollout": 4}
"""Seconds between scrapes: on a busy machine, a generating server needs one or two seconds for its 200 kB."""
SECONDS = 800.0


@dataclass
class QuickstartRun:
    """A finished run, and what Prometheus recorded of it."""

    out: Path
    """Folder of the run."""
    prometheus: PrometheusServer
    """Still running. The run's targets are gone, so queries need a moment between `began` and `ended`."""
    began: float
    """When the trainer was first scraped, in seconds since the epoch."""
    ended: float = 0.0
    """When the trainer was last scraped."""
    exit_code: int = -1
    expositions: dict[str, str] = field(default_factory=dict)
    """The trainer's metrics in the middle of the run, by job."""


def watched_quickstart(folder: Path, closing: ExitStack) -> QuickstartRun:
    """Run the quickstart as in the README, watched by a Prometheus that `closing` stops."""
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
            watched.expositions.update(_scraped(address))
        time.sleep(0.5)
    watched.exit_code = finish(process, watched.out, seconds=1)
    for one in targets.values():
        one.clear()
    (last,) = prometheus.query('max(max_over_time(timestamp(up{job="seele-trainer"} == 1)[1h:1s]))')
    watched.ended = last.value
    return watched


def _address(runner: int) -> str:
    """Where the run's first trainer serves its telemetry; empty before it has started."""
    for process in psutil.Process(runner).children(recursive=True):
        try:
            environment, command = process.environ(), process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if "train" in command and "SEELE_HTTP_PORT" in environment:
            return f"{environment['SEELE_BIND_HOST']}:{environment['SEELE_HTTP_PORT']}"
    return ""


def _scraped(address: str) -> Mapping[str, str]:
    return {job: requests.get(f"http://{address}{path}", timeout=30).text for job, path in PATHS.items()}
