"""A real Prometheus server for tests, and `promtool`.

    targets = ScrapeTargets(folder / "trainer.json")
    with PrometheusServer(folder, [Job("seele-trainer", targets)], rules=[RULES]) as prometheus:
        targets.write("127.0.0.1:9400", namespace="local", run="quickstart", attempt="1", pod="quickstart-trainer-0")
        ...
        prometheus.query('seele_reward_mean{run="quickstart"}')

It scrapes every second. The fixture `quickstart_run` of tests/e2e is a finished run of 30 steps whose Prometheus is still
running (`quickstart_run.prometheus`, and `began` and `ended` in seconds since the epoch).
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
import yaml

from tests.support import REPOSITORY
from tests.support.control_plane import die_with_parent, free_port
from tests.support.waiting import wait_for

RULES = REPOSITORY / "manifests" / "prometheus" / "rules.yaml"
START_SECONDS = 60.0
STOP_SECONDS = 15.0


class PrometheusMissing(Exception):
    """No Prometheus could be found, downloaded or unpacked."""


def prometheus_binaries() -> Path:
    """Folder with prometheus and promtool. Raises PrometheusMissing."""
    # stderr, with the progress of a download, goes to the terminal.
    found = subprocess.run([REPOSITORY / "tools" / "prometheus.sh"], stdout=subprocess.PIPE, text=True)
    if found.returncode != 0:
        raise PrometheusMissing("tools/prometheus.sh found no Prometheus; it says why above")
    return Path(found.stdout.strip())


def promtool(*arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run promtool with `given` as its input."""
    command = [str(prometheus_binaries() / "promtool"), *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=120)


def complaints_about_metrics(exposition: str) -> str:
    """The complaints of `promtool check metrics` about a text of metrics; empty if there are no complaints."""
    checked = promtool("check", "metrics", given=exposition)
    return checked.stdout + checked.stderr


class QueryRefused(RuntimeError):
    """Prometheus refuses a query; the message has its reason."""


@dataclass(frozen=True)
class Sample:
    """A series at one moment."""

    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True)
class Series:
    """A series over time."""

    labels: Mapping[str, str]
    values: tuple[float, ...]


def evaluate(url: str, expression: str, moment: float) -> list[Series]:
    """The value of an expression at a moment, in seconds since the epoch. Raises QueryRefused."""
    answer = _ask(url, "query", query=expression, time=f"{moment:.3f}")
    if answer["resultType"] == "scalar":
        return [Series({}, (float(answer["result"][1]),))]
    return [Series(one["metric"], (float(one["value"][1]),)) for one in answer["result"]]


def evaluate_over(url: str, expression: str, since: float, until: float, step: float) -> list[Series]:
    """The values of an expression over a time range. Raises QueryRefused."""
    answer = _ask(url, "query_range", query=expression, start=f"{since:.3f}", end=f"{until:.3f}", step=f"{step:g}")
    return [Series(one["metric"], tuple(float(value) for _, value in one["values"])) for one in answer["result"]]


def _ask(url: str, route: str, **parameters: str) -> Any:
    answer = requests.get(f"{url}/api/v1/{route}", params=parameters, timeout=30).json()
    if answer["status"] != "success":
        raise QueryRefused(f"{route} {parameters}: {answer.get('error')}")
    return answer["data"]


class ScrapeTargets:
    """A file of targets, which Prometheus reloads when it changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("[]")

    def write(self, address: str, **labels: str) -> None:
        """Make `address` (host:port) with these labels the only target."""
        self.write_all([(address, labels)])

    def clear(self) -> None:
        """Remove the target, as a cluster does when a pod ends."""
        self.write_all([])

    def write_all(self, targets: Iterable[tuple[str, Mapping[str, str]]]) -> None:
        """Make these the targets: addresses and their labels. An unchanged file is not written."""
        text = json.dumps([{"targets": [address], "labels": labels} for address, labels in targets])
        if self.path.read_text() != text:
            fresh = self.path.with_suffix(".new")
            fresh.write_text(text)
            fresh.replace(self.path)


@dataclass(frozen=True)
class Job:
    """A scrape job: the targets in a file, and the path of their metrics."""

    name: str
    targets: ScrapeTargets
    path: str = "/metrics"
    every: int = 1
    """Seconds between two scrapes, and timeout of each."""


class PrometheusServer(AbstractContextManager["PrometheusServer"]):
    """Prometheus with its configuration and data in `folder`; it evaluates `rules` every second."""

    def __init__(self, folder: Path, jobs: Sequence[Job], rules: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._jobs = jobs
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        """Its configuration file."""
        return self.folder / "prometheus.yml"

    def __enter__(self) -> Self:
        binaries = prometheus_binaries()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(yaml.safe_dump(self._configuration()))
        with ExitStack() as undo, (self.folder / "prometheus.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(binaries / "prometheus"),
                    f"--config.file={self.config}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                # It shares two cores with the run that it scrapes.
                env={**os.environ, "GOMAXPROCS": "1", "NO_PROXY": "127.0.0.1"},
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
            undo.callback(self._stop)
            wait_for(self._ready, lambda: f"Prometheus is ready\n{self.log()}", START_SECONDS)
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_SECONDS)

    def query(self, expression: str, at: float | None = None) -> list[Sample]:
        """The samples of an expression now, or at a moment. Raises QueryRefused."""
        found = evaluate(self.url, expression, time.time() if at is None else at)
        return [Sample(one.labels, one.values[0]) for one in found]

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with `health` and `lastError`."""
        return [rule for group in _ask(self.url, "rules")["groups"] for rule in group["rules"]]

    def log(self, lines: int = 30) -> str:
        """The end of its log."""
        return "\n".join((self.folder / "prometheus.log").read_text(errors="replace").splitlines()[-lines:])

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"Prometheus has ended\n{self.log()}"
        try:
            return requests.get(f"{self.url}/-/ready", timeout=5).status_code == 200
        except requests.RequestException:
            return False

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in self._rules],
            "scrape_configs": [
                {
                    "job_name": job.name,
                    "metrics_path": job.path,
                    "scrape_interval": f"{job.every}s",
                    "scrape_timeout": f"{job.every}s",
                    "file_sd_configs": [{"files": [str(job.targets.path)], "refresh_interval": "1s"}],
                }
                for job in self._jobs
            ],
        }
