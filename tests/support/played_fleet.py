"""Simulated training runs in a test cluster, and a Prometheus that watches them, their operator and their GPUs."""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests
from prometheus_client.exposition import generate_latest

from seele_operator.plan.names import ATTEMPT_LABEL, INDEX_LABEL, METRICS_PORT, ROLE_LABEL, RUN_LABEL
from seele_trainer.rollout.protocol import RolloutServer
from seele_trainer.telemetry.collector import RunCollector
from seele_trainer.telemetry.definitions import Moment
from tests.support.cluster_runs import ClusterRuns
from tests.support.kubernetes_api import ApiError, Body
from tests.support.operator_process import NAMESPACE, OperatorProcess
from tests.support.prometheus_server import RULES, Job, PrometheusServer, ScrapeTargets
from tests.support.run_folder import run_config, step_record
from tests.support.waiting import wait_for

CHECKPOINT_EVERY = 5
GPU_PAGES = {"dcgm": "/gpu", "dcgm-honoured": "/gpu-honoured"}
"""Pages of a simulated DCGM exporter by job: scraped as by default, and with `honor_labels`."""


@dataclass
class PlayedRun:
    """The progress of a run: a step every `seconds`, `steps` in all."""

    steps: int = 40
    seconds: float = 1.0
    seed: int = 0
    attempt: int = 0
    step: int = 0
    checkpoint: int = 0
    began: float = 0.0
    collector: RunCollector | None = None
    stepped: float = field(default_factory=time.time)

    def start(self, name: str, attempt: int) -> None:
        """Begin an attempt at the last checkpoint."""
        self.attempt, self.step = attempt, self.checkpoint
        self.began = self.stepped = time.time()
        config = run_config(self.steps, name=name)
        server = RolloutServer("http://127.0.0.1:1", "ready")
        self.collector = RunCollector(config, lambda: Moment(self.attempt, self.checkpoint, self.stepped, [server]))

    def advance(self) -> dict[str, Any]:
        """Make the steps that are due; returns the answer of /progress."""
        assert self.collector is not None
        due = min(self.steps, self.checkpoint + int((time.time() - self.began) / self.seconds))
        while self.step < due:
            self.step += 1
            record = step_record(self.step, steps=self.steps, seed=self.seed, problems=4)
            self.collector.record(record)
            self.stepped = time.time()
        saved = self.step - self.step % CHECKPOINT_EVERY
        if saved > self.checkpoint:
            self.began += (saved - self.checkpoint) * self.seconds
            self.checkpoint = saved
        if self.step == 0:
            return {"phase": "starting"}
        last = step_record(self.step, steps=self.steps, seed=self.seed, problems=4)
        return {
            "phase": "train",
            "step": self.step,
            "steps": self.steps,
            "reward": last.reward,
            "accuracy": last.unhinted_accuracy,
            "hintRate": last.hint_rate,
            "policyVersion": self.step,
            "lastCheckpointStep": self.checkpoint,
        }


class PlayedFleet(AbstractContextManager["PlayedFleet"]):
    """Makes the trainers of all runs in some namespaces advance, watched by `prometheus`."""

    def __init__(self, operator: OperatorProcess, folder: Path, *namespaces: ClusterRuns) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.runs: dict[str, PlayedRun] = {}
        """By the name of the run; others get the defaults."""
        self.gpus_of = ""
        """The run that has GPUs."""
        self._operator = operator
        self._namespaces = namespaces
        names = ("seele-operator", "seele-trainer", *GPU_PAGES)
        self._targets = {name: ScrapeTargets(folder / f"{name}.json") for name in names}
        jobs = [Job(name, self._targets[name], GPU_PAGES.get(name, "/metrics")) for name in names]
        self.prometheus = PrometheusServer(folder / "prometheus", jobs, [RULES])
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._play, name="played fleet", daemon=True)

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            opened.enter_context(self.prometheus)
            self._targets["seele-operator"].write(
                self._operator.url.removeprefix("http://"), namespace=NAMESPACE, pod="seele-operator-0"
            )
            self._thread.start()
            opened.callback(self._stop)
            # Prometheus sees no increase in what was counted before the first scrape.
            wait_for(lambda: self.prometheus.query("seele_operator_leader"), "the operator is scraped")
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    def _stop(self) -> None:
        self._done.set()
        self._thread.join()

    def _play(self) -> None:
        while not self._done.wait(0.5):
            found: list[tuple[str, dict[str, str]]] = []
            for runs in self._namespaces:
                try:
                    pods = runs.api.list("pods", runs.namespace, f"{RUN_LABEL},{ROLE_LABEL}=trainer,{INDEX_LABEL}=0")
                except (OSError, requests.RequestException, ApiError):
                    continue
                found += [target for pod in pods if (target := self._update(runs, pod)) is not None]
            self._targets["seele-trainer"].write_all(found)
            for address in (address for address, labels in found if labels["run"] == self.gpus_of):
                self._targets["dcgm"].write(address, namespace="gpu-operator", pod="dcgm-exporter-0")
                self._targets["dcgm-honoured"].write(address)

    def _update(self, runs: ClusterRuns, pod: Body) -> tuple[str, dict[str, str]] | None:
        """Update what a trainer serves; returns its address and labels, None if it is not running."""
        metadata, address = pod["metadata"], pod["status"].get("podIP")
        if pod["status"].get("phase") != "Running" or metadata.get("deletionTimestamp") or not address:
            return None
        name, attempt = metadata["labels"][RUN_LABEL], metadata["labels"][ATTEMPT_LABEL]
        played = self.runs.setdefault(name, PlayedRun())
        if played.attempt != int(attempt):
            played.start(name, int(attempt))
        try:
            trainer = runs.driver.trainer(pod)
        except KeyError:
            return None  # it has just ended
        trainer.progress = {**trainer.progress, **played.advance()}
        assert played.collector is not None
        trainer.pages["/metrics"] = _page(played.collector)
        labels = {"namespace": runs.namespace, "run": name, "attempt": attempt, "pod": metadata["name"]}
        trainer.pages |= {path: lambda: gpu_page(labels["namespace"], labels["pod"]) for path in GPU_PAGES.values()}
        return f"{address}:{METRICS_PORT}", labels


def gpu_page(namespace: str, pod: str) -> str:
    """What a DCGM exporter serves for a pod with two GPUs."""
    values = {
        "DCGM_FI_DEV_GPU_UTIL": 93,
        "DCGM_FI_DEV_FB_USED": 61440,
        "DCGM_FI_PROF_SM_ACTIVE": 0.71,
        "DCGM_FI_DEV_POWER_USAGE": 540.5,
    }
    lines = [
        f'{name}{{gpu="{gpu}",UUID="GPU-{gpu}",Hostname="node",namespace="{namespace}",pod="{pod}"}} {value}'
        for name, value in values.items()
        for gpu in (0, 1)
    ]
    return "\n".join(lines) + "\n"


def _page(collector: RunCollector) -> Callable[[], str]:
    registry = collector.register()
    return lambda: generate_latest(registry).decode()
