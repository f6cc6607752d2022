"""Measures the operator with a number of runs, on a cluster of its own."""

import asyncio
import math
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.scale.api import RUNS, Api, Body, PodSeen, PodWatch
from seele_operator.validation.crd import crd
from tests.support import REPOSITORY, control_plane
from tests.support.cluster_runs import run_body
from tests.support.control_plane import ControlPlane, die_with_parent
from tests.support.operator_process import OperatorProcess, grant

SHAPES = ((1, 1), (2, 1), (2, 2))
"""Trainers and rollout servers of runs, in turn."""
TEAMS = tuple(f"team-{number}" for number in range(10))
PROBES = "probes"
"""Namespaces of the runs, and of those that are applied one by one."""
CREATING = 24
"""Runs that are created concurrently."""
PATIENCE_SECONDS = 900.0
SCRAPE_SECONDS = 15.0
"""How often /metrics is read while idle."""
WRITING = ("create", "update", "patch", "delete", "deletecollection")


@dataclass(frozen=True)
class Effort:
    """How many measurements are made for each number of runs."""

    probes: int
    failures: int
    idle_seconds: float


@dataclass(frozen=True)
class Figures:
    """What was measured with a number of runs. Times are in seconds."""

    kubernetes: str
    """Version of the API server."""
    runs: int
    pods: int
    started: float
    """From the start of the process until /readyz succeeds, without any run."""
    libraries: float
    """Of this, the time for importing all modules."""
    torch: bool
    """Whether libtorch is mapped into the process."""
    created: float
    """Until the API server has accepted the last of all runs, created at once."""
    all_pods: float
    """From the first of these requests until every pod exists."""
    all_running: float
    """From the same moment until all runs are Running according to the operator."""
    requests_a_run: float
    """Requests to the API server per run until then."""
    cpu_a_run: float
    """CPU seconds of the operator per run until then."""
    server_cpu_a_run: float
    """CPU seconds of the API server and etcd per run until then, for all clients."""
    memory: float
    """Resident megabytes at the end."""
    idle_share: float
    """Share of one core used while nothing changes but /progress and /metrics are read."""
    idle_requests: float
    """Requests per second to the API server while idle, including those for the lease."""
    apply_p50: float
    """From applying another run until its pods exist."""
    apply_p99: float
    apply_longest: float
    restart_p50: float
    """From a trainer's failure until the first pod of the next attempt exists."""
    restart_longest: float
    stopped_back: float
    """From SIGTERM, followed by a restart, until a run applied at that moment has its pods."""
    killed_back: float
    """The same from SIGKILL: the lease has to expire."""
    writes_of_restarts: int
    """Requests after the two restarts that changed anything but the lease and the run applied then."""
    load: float
    """Load average of the machine over the last minute, at the end."""


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of `values` that is not exceeded by this share of them."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


async def measure(count: int, effort: Effort, report: Callable[[str], None]) -> Figures:
    """Measure everything on a new control plane. Leaves nothing running."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="seele-scale-")))
        # A late heartbeat on a busy machine must not cost pods.
        control_plane.NODE_LOST_SECONDS = 3600
        plane = stack.enter_context(ControlPlane(folder))
        plane.install(crd())
        stack.enter_context(_nodes(plane))
        for name in (*TEAMS, PROBES):
            plane.namespace(name)
        operator = OperatorProcess(grant(plane, "rbac.yaml"), folder / "operator.log")
        stack.callback(operator.kill)
        async with Api(plane.admin_kubeconfig) as api, asyncio.TaskGroup() as group:
            watch = PodWatch(api)
            following = group.create_task(watch.follow())
            try:
                return await _Bench(plane, api, watch, operator, report).figures(count, effort)
            finally:
                following.cancel()


@contextmanager
def _nodes(plane: ControlPlane) -> Iterator[None]:
    # One address for all pods, different from those of tests on the same machine.
    address = f"127.1.{secrets.randbelow(250)}.{1 + secrets.randbelow(250)}"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.scale.nodes", str(plane.admin_kubeconfig), address],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError("the simulated nodes have ended; see their output above")
        yield
    finally:
        process.kill()
        process.wait()


@dataclass
class _Bench:
    """One cluster, and the operator on it."""

    plane: ControlPlane
    api: Api
    watch: PodWatch
    operator: OperatorProcess
    report: Callable[[str], None]

    async def figures(self, count: int, effort: Effort) -> Figures:
        libraries = await _import_seconds()
        started = await self._start()
        torch = "libtorch" in Path(f"/proc/{self.operator.pid}/maps").read_text()
        servers = [process for process in psutil.Process().children() if process.name() in ("etcd", "kube-apiserver")]
        before, servers_before = _computed(self.operator.pid), sum(_computed(server.pid) for server in servers)
        began = time.monotonic()
        created, all_pods = await self._create_all(count)
        servers_cpu = ", ".join(
            f"{process.name()} {_computed(process.pid):.0f} s" for process in psutil.Process().children()
        )
        self.report(f"{len(self.watch.pods)} pods in {all_pods:.1f} s; CPU time so far: {servers_cpu}")
        await self._until(lambda: self._running() == count, "all runs are Running")
        all_running = time.monotonic() - began
        await self._until_trainers_were_asked()
        await self._quiet()
        requests, computed = self._requests(), _computed(self.operator.pid) - before
        server_computed = sum(_computed(server.pid) for server in servers) - servers_before
        self.report(f"all Running after {all_running:.1f} s")
        pods = len(self.watch.pods)
        share, idle_requests = await self._idle(effort.idle_seconds)
        self.report(f"{100 * share:.1f} % of a core when nothing changes")
        applied = [await self._apply_one(number) for number in range(effort.probes)]
        self.report(f"one more run has its pods after {percentile(applied, 0.5):.2f} s")
        restarted = [await self._fail_one(number) for number in range(min(effort.failures, count))]
        memory = psutil.Process(self.operator.pid).memory_info().rss / 1e6
        # Restarted runs have new trainers, whose answers must not count as changes made by the operator.
        await self._until_trainers_were_asked()
        writes = 0
        backs = []
        for kill in (False, True):
            back, changed = await self._restart_operator(kill)
            backs.append(back)
            writes += changed
            self.report(f"back at work {back:.1f} s after it was {'killed' if kill else 'stopped'}; {changed} writes")
        return Figures(
            # A build from source may call itself 0.0; the folder's name is more specific.
            kubernetes=f"{'.'.join(map(str, self.plane.version))} ({self.plane.binaries.name})",
            runs=count,
            pods=pods,
            started=started,
            libraries=libraries,
            torch=torch,
            created=created,
            all_pods=all_pods,
            all_running=all_running,
            requests_a_run=requests / count,
            cpu_a_run=computed / count,
            server_cpu_a_run=server_computed / count,
            memory=memory,
            idle_share=share,
            idle_requests=idle_requests,
            apply_p50=percentile(applied, 0.5),
            apply_p99=percentile(applied, 0.99),
            apply_longest=max(applied),
            restart_p50=percentile(restarted, 0.5),
            restart_longest=max(restarted),
            stopped_back=backs[0],
            killed_back=backs[1],
            writes_of_restarts=writes,
            load=psutil.getloadavg()[0],
        )

    async def _start(self) -> float:
        """Start the operator; returns the seconds until it is ready."""
        began = time.monotonic()
        self.operator.start(wait=False)
        await self._until(self.operator.ready, "the operator is ready")
        return time.monotonic() - began

    async def _until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for a condition by polling."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await asyncio.to_thread(reached):  # noqa: ASYNC110 - another process is asked
                await asyncio.sleep(0.02)

    def _running(self) -> float:
        return self.operator.metric("seele_operator_runs", phase="Running")

    def _requests(self) -> float:
        return self.operator.metric("seele_operator_api_request_seconds_count")

    async def _until_trainers_were_asked(self) -> None:
        """Wait until every run's status has its trainer's answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                runs = (await self.api.request("GET", f"{RUNS}/seeleruns"))["items"]
                if all("etaSeconds" in run.get("status", {}) for run in runs):
                    return
                await asyncio.sleep(3)

    async def _quiet(self) -> None:
        """Wait until the operator is idle for a moment."""
        passes = -1.0
        while passes != (passes := self.operator.metric("seele_operator_reconcile_seconds_count")):  # noqa: ASYNC110
            await asyncio.sleep(3)

    async def _idle(self, seconds: float) -> tuple[float, float]:
        """Share of a core, and requests per second to the API server, while nothing changes."""
        requests, before, end = self._requests(), _computed(self.operator.pid), time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await asyncio.sleep(min(SCRAPE_SECONDS, left))
            self.operator.get("/metrics")
        return (_computed(self.operator.pid) - before) / seconds, (self._requests() - requests) / seconds

    async def _create_all(self, count: int) -> tuple[float, float]:
        """Create all runs; seconds until the last one was accepted, and until all pods existed."""
        slots = asyncio.Semaphore(CREATING)

        async def create(number: int) -> None:
            async with slots:
                await self._apply(TEAMS[number % len(TEAMS)], f"run-{number}", number)

        began = time.monotonic()
        await asyncio.gather(*(create(number) for number in range(count)))
        created = time.monotonic() - began
        pods = sum(sum(_shape(number)) for number in range(count))
        await self.watch.until(lambda: len(self.watch.pods) >= pods, PATIENCE_SECONDS, f"{pods} pods exist")
        return created, time.monotonic() - began

    async def _apply(self, namespace: str, name: str, number: int) -> int:
        """Apply a run of one of the shapes; how many pods it wants."""
        trainers, servers = _shape(number)
        body = run_body(name, {"trainer": {"replicas": trainers}, "rollout": {"replicas": servers}})
        path = _path(namespace, name)
        await self.api.request("PATCH", path, body, "application/apply-patch+yaml", fieldManager="kubectl")
        return trainers + servers

    async def _apply_one(self, number: int) -> float:
        """Apply one more run and delete it again; seconds until it had its pods."""
        name = f"probe-{number}"
        began = time.monotonic()
        wanted = await self._apply(PROBES, name, number)
        await self._until_pods(name, lambda pods: len(pods) == wanted, f"{wanted} pods of {name}")
        seconds = max(pod.moment for pod in self.watch.of(name)) - began
        await self._until_running(PROBES, name)
        await self.api.request("DELETE", _path(PROBES, name))
        await self._until_pods(name, lambda pods: not pods, f"{name} is gone")
        return seconds

    async def _until_running(self, namespace: str, name: str) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                run = await self.api.request("GET", _path(namespace, name))
                if run.get("status", {}).get("phase") == "Running":
                    return
                await asyncio.sleep(0.05)

    async def _until_pods(self, run: str, reached: Callable[[list[PodSeen]], bool], what: str) -> None:
        await self.watch.until(lambda: reached(self.watch.of(run)), PATIENCE_SECONDS, what)

    async def _fail_one(self, number: int) -> float:
        """Let a trainer end with an error; seconds until the next attempt had a pod."""
        name, namespace = f"run-{number}", TEAMS[number % len(TEAMS)]
        ended = {"exitCode": 1, "reason": "Error", "startedAt": None, "finishedAt": None}
        container = {
            "name": "trainer",
            "image": "any",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
        change = {"status": {"phase": "Failed", "containerStatuses": [container]}}
        began = time.monotonic()
        path = f"api/v1/namespaces/{namespace}/pods/{name}-trainer-0/status"
        await self.api.request("PATCH", path, change, "application/merge-patch+json")
        await self._until_pods(name, lambda pods: any(pod.attempt == 2 for pod in pods), f"attempt 2 of {name}")
        seconds = min(pod.moment for pod in self.watch.of(name) if pod.attempt == 2) - began
        await self._until_running(namespace, name)
        return seconds

    async def _restart_operator(self, kill: bool) -> tuple[float, int]:
        """Restart the operator; seconds until a run applied meanwhile had its pods, and changes to other objects."""
        await self._quiet()
        name = "while-killed" if kill else "while-stopped"
        known = len(self.plane.audit())
        began = time.monotonic()
        if kill:
            self.operator.kill()
        else:
            await asyncio.to_thread(self.operator.terminate)
        self.operator.start(wait=False)
        wanted = await self._apply(PROBES, name, 0)
        await self._until_pods(name, lambda pods: len(pods) == wanted, f"{wanted} pods of {name}")
        back = max(pod.moment for pod in self.watch.of(name)) - began
        await self._until_running(PROBES, name)
        await self._quiet()
        changes = [request for request in self.plane.audit()[known:] if _changes(request)]
        for request in changes:
            self.report(f"changed: {request['verb']} {request['requestURI']}")
        return back, len(changes)


def _computed(process: int) -> float:
    """CPU seconds of a process."""
    used = psutil.Process(process).cpu_times()
    return used.user + used.system


def _shape(number: int) -> tuple[int, int]:
    return SHAPES[number % len(SHAPES)]


def _path(namespace: str, name: str) -> str:
    return f"{RUNS}/namespaces/{namespace}/seeleruns/{name}"


def _changes(request: Body) -> bool:
    """Whether an audited request of the operator changed anything but its lease and the runs applied one by one."""
    about = request.get("objectRef", {"resource": request["requestURI"]})
    others = about["resource"] != "leases" and about.get("namespace") != PROBES
    return others and request["verb"] in WRITING and str(request["user"]["username"]).endswith(":seele-operator")


async def _import_seconds() -> float:
    """Seconds that a fresh interpreter takes to start and import the operator."""
    began = time.monotonic()
    code = "import seele_operator.cli, seele_operator.controller.process"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code)
    if await process.wait():
        raise RuntimeError("the operator cannot be imported")
    return time.monotonic() - began
