"""Draws the pictures of the dashboards in docs/images from real data.

    python benchmarks/dashboard_pictures.py run      (a whole quickstart on this machine: about five minutes)
    python benchmarks/dashboard_pictures.py fleet    (a real API server and operator: about five minutes)
    python benchmarks/dashboard_pictures.py again    (both, from the data of the last time)

A real Prometheus watches. The fleet's runs have no node to train on: their pods' phases and their trainers' numbers are
played, as in the tests; what the operator does and says about them is real.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("tests", "tests/e2e", "tools")]

from watched_run import watched_quickstart  # noqa: E402

from cluster_runs import ClusterRuns  # noqa: E402 - the tests' folder is needed first
from control_plane import ControlPlane  # noqa: E402
from grafana.drawing.__main__ import draw  # noqa: E402
from grafana.drawing.data import Source  # noqa: E402
from grafana.prometheus import Prometheus  # noqa: E402
from operator_process import OperatorProcess, grant  # noqa: E402
from played_fleet import PlayedFleet, PlayedRun  # noqa: E402
from pods_driver import PodsDriver  # noqa: E402
from prometheus_server import PrometheusServer  # noqa: E402
from seele_operator.validation.crd import crd  # noqa: E402

KEPT = REPOSITORY / ".cache" / "pictures"
IMAGES = REPOSITORY / "docs" / "images"
LOOKS = "Grafana's own rendering looks slightly different."


@dataclass(frozen=True)
class Seen:
    """What a Prometheus has watched, and when."""

    since: float
    until: float
    variables: dict[str, str]
    caption: str

    def draw(self, name: str, url: str) -> list[str]:
        """Draw a dashboard into docs/images; the titles of panels that are empty."""
        body = json.loads((REPOSITORY / "manifests" / "grafana" / f"{name}.json").read_text())
        span = f"{self.until - self.since:.0f}s"
        usual = {"window": "30s", "__rate_interval": "15s", "__interval": "1s", "__range": span}
        # Whole seconds: the end of the range is then one of its steps.
        since, until = float(int(self.since)), float(int(self.until))
        source = Source(Prometheus(url), since, until, 1.0, {**usual, **self.variables})
        sheet, empty = draw(body, source, self.caption)
        out = IMAGES / f"dashboard-{name}.png"
        sheet.save(out)
        size = out.stat().st_size / 1000
        print(f"{out.relative_to(REPOSITORY)}: {size:.0f} kB; empty panels: {empty or 'none'}")
        return empty

    def keep(self, name: str) -> None:
        """Write it down beside the data."""
        (KEPT / name / "seen.json").write_text(json.dumps(asdict(self)))


def of_run(folder: Path) -> list[str]:
    """Train the whole quickstart, and draw it; the titles of empty panels."""
    with ExitStack() as closing:
        run = watched_quickstart(folder, closing)
        if run.exit_code != 0:
            sys.exit(f"the quickstart ended with code {run.exit_code}")
        seen = Seen(
            run.began,
            run.ended,
            {"namespace": "local", "run": "quickstart"},
            f"Drawn from the dashboard's JSON and a real Prometheus of the quickstart run on two CPU cores. {LOOKS}",
        )
        seen.keep("run")
        return seen.draw("run", run.prometheus.url)


class Story:
    """What happens to the fleet, second by second."""

    def __init__(self, fleet: PlayedFleet, driver: PodsDriver, math: ClusterRuns, code: ClusterRuns) -> None:
        self.fleet, self.driver, self.math, self.code = fleet, driver, math, code
        self._began = time.monotonic()

    def at(self, second: float) -> None:
        """Wait for a second of the story."""
        time.sleep(max(0.0, self._began + second - time.monotonic()))

    def make(self, runs: ClusterRuns, name: str, played: PlayedRun, waits: float) -> None:
        """Create a run whose pods find a node after some seconds."""
        self.fleet.runs[name] = played
        self.driver.behave(runs.namespace, schedule=False)
        runs.make(name)
        threading.Timer(waits, self.driver.behave, (runs.namespace,), {"schedule": True}).start()

    def play(self) -> None:
        """Four and a half minutes in the life of two teams."""
        math, code, driver = self.math, self.code, self.driver
        self.make(math, "math-seed-0", PlayedRun(steps=60, seconds=5, seed=1), 7)
        self.make(code, "code-small", PlayedRun(steps=30, seconds=4, seed=2), 4)
        self.at(15)
        self.make(math, "math-seed-1", PlayedRun(steps=60, seconds=5, seed=3), 6)
        self.make(code, "code-large", PlayedRun(steps=90, seconds=3.5, seed=4), 14)
        self.at(40)
        self.make(math, "math-long", PlayedRun(steps=80, seconds=3, seed=5), 11)
        self.at(70)
        driver.finish(math.pod("trainer", 1, "math-seed-1"), 1)
        self.at(85)
        self.make(code, "wrong-data", PlayedRun(steps=30, seconds=4, seed=6), 5)
        self.at(105)
        driver.evict(code.pod("trainer", 0, "code-large"))
        driver.finish(code.pod("trainer", 0, "wrong-data"), 2, message="dataset.path: no such file")
        self.at(125)
        math.suspend(True, "math-long")
        self.at(150)
        for index in (1, 0):
            driver.finish(code.pod("trainer", index, "code-small"), 0)
        self.at(160)
        driver.run_out_of_memory(math.pod("trainer", 0, "math-seed-1"))
        self.at(190)
        math.suspend(False, "math-long")
        self.at(225)
        driver.behave(code.namespace, schedule=False)
        code.make("too-large")
        self.at(270)


def of_fleet(folder: Path) -> list[str]:
    """Play the story on a real API server with a real operator, and draw it; the titles of empty panels."""
    with ExitStack() as closing:
        plane = closing.enter_context(ControlPlane(folder / "control-plane"))
        plane.install(crd(cel=False))
        driver = closing.enter_context(PodsDriver(plane.admin))
        operator = closing.enter_context(OperatorProcess(grant(plane, "rbac.yaml"), folder / "operator.log"))
        math, code = (ClusterRuns(plane, driver, operator, plane.namespace(name)) for name in ("math", "code"))
        for runs in (math, code):
            closing.callback(runs.history.close)
        fleet = closing.enter_context(PlayedFleet(operator, folder, math, code))
        began = time.time()
        Story(fleet, driver, math, code).play()
        seen = Seen(
            began,
            time.time() - 1,
            {"namespace": "math|code"},
            "Drawn from the dashboard's JSON and a real Prometheus: API server and operator are real, pods and trainers "
            f"are played. {LOOKS}",
        )
        seen.keep("fleet")
        return seen.draw("fleet", fleet.prometheus.url)


def again() -> list[str]:
    """Draw what was seen the last time; the titles of empty panels."""
    empty = []
    for kept in sorted(KEPT.glob("*/seen.json")):
        folder, seen = kept.parent, Seen(**json.loads(kept.read_text()))
        with PrometheusServer(folder / "prometheus", []) as server:
            empty += seen.draw(folder.name, server.url)
    return empty


def main(arguments: list[str]) -> int:
    """Draw what is asked for; 1 where a panel is empty."""
    drawn = {"run": of_run, "fleet": of_fleet}
    if arguments == ["again"]:
        return 1 if again() else 0
    if not arguments or not set(arguments) <= set(drawn):
        print(__doc__, file=sys.stderr)
        return 2
    empty = []
    for name in arguments:
        shutil.rmtree(KEPT / name, ignore_errors=True)
        (KEPT / name).mkdir(parents=True)
        empty += drawn[name](KEPT / name)
    return 1 if empty else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
