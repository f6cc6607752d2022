"""The local executor with real processes: small servers and trainers in place of vLLM and DeepSpeed."""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.support import REPOSITORY
from tests.support.waiting import wait_for

PODS = Path(__file__).parent / "pods"
RUNNER = """
import sys, yaml
from pathlib import Path
from seele_operator.api.types import BadRunError
from seele_operator.local.executor import Limits, run_locally
from seele_operator.local.folder import open_run_folder
objects = list(yaml.safe_load_all(Path(sys.argv[1]).read_text()))
limits = Limits(first_delay=0.1, longest_delay=0.2, failure_grace=1.0, stop_grace=3600)
try:
    with open_run_folder(Path(sys.argv[2]), "name: fake") as folder:
        sys.exit(run_locally(objects, folder.path, lock=folder.lock, limits=limits))
except BadRunError as error:
    sys.exit(f"refused: {error}")
"""
DEADLINE = 30.0


def pod(role: str, index: int, script: str, *arguments: str, port: int, port_name: str, **more: Any) -> dict[str, Any]:
    name = f"fake-{role}-{index}"
    return {
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"seele.dev/role": role, "seele.dev/index": str(index)}},
        "spec": {
            "hostname": name,
            "subdomain": f"fake-{role}",
            "terminationGracePeriodSeconds": 5,
            **more.pop("spec", {}),
            "containers": [
                {
                    "name": role,
                    "command": ["python3", str(PODS / script)],
                    "args": list(arguments),
                    "env": [
                        {"name": "SEELE_RUN_DIR", "value": "/seele/run"},
                        {"name": "SEELE_BIND_HOST", "value": "0.0.0.0"},
                        {"name": "SEELE_HTTP_PORT", "value": str(port)},
                        *more.pop("env", []),
                    ],
                    "ports": [{"name": port_name, "containerPort": port}],
                    "volumeMounts": [
                        {"name": "run", "mountPath": "/seele/run"},
                        {"name": "config", "mountPath": "/etc/seele"},
                    ],
                    **more,
                }
            ],
            "volumes": [{"name": "run", "emptyDir": {}}, {"name": "config", "configMap": {"name": "fake-config"}}],
        },
    }


def server(index: int, *arguments: str, **more: Any) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 0.1, "failureThreshold": 300}
    return pod(
        "rollout",
        index,
        "fake_server.py",
        "--port=$(SEELE_HTTP_PORT)",
        *arguments,
        port=28000,
        port_name="http",
        **{"startupProbe": probe, "readinessProbe": probe, **more},
    )


def trainer(index: int, *arguments: str, servers: int = 1, **more: Any) -> dict[str, Any]:
    urls = ",".join(f"http://fake-rollout-{i}.fake-rollout:28000" for i in range(servers))
    return pod(
        "trainer",
        index,
        "fake_trainer.py",
        *arguments,
        port=29400,
        port_name="metrics",
        env=[{"name": "SEELE_ROLLOUT_URLS", "value": urls}],
        **more,
    )


class Execution:
    """`run_locally` in a process of its own, as `seele run` has it."""

    def __init__(self, folder: Path, *objects: dict[str, Any]):
        self.folder = folder
        plan = folder.parent / f"{folder.name}.yaml"
        number = len(list(folder.parent.glob("*.out")))
        plan.write_text(yaml.safe_dump_all(objects))
        self.output = (folder.parent / f"{folder.name}-{number}.out").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(plan), str(folder)], stdout=self.output, stderr=subprocess.STDOUT
        )

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def text(self) -> str:
        self.output.flush()
        return Path(self.output.name).read_text()

    def log(self, pod_name: str) -> str:
        path = self.folder / "logs" / f"{pod_name}.log"
        return path.read_text() if path.exists() else ""

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def living(self) -> list[psutil.Process]:
        """Processes of this run, even if their parent is gone."""
        return [process for process in psutil.process_iter() if self._belongs(process)]

    def _belongs(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            return process.environ().get("SEELE_RUN_DIR") == str(self.folder)
        return False


@pytest.fixture
def execute(tmp_path: Path) -> Iterator[Callable[..., Execution]]:
    started: list[Execution] = []

    def start(*objects: dict[str, Any], folder: str = "run") -> Execution:
        started.append(Execution(tmp_path / folder, *objects))
        return started[-1]

    yield start
    for execution in started:
        execution.process.kill()
        execution.process.wait()
        wait_for(lambda execution=execution: not execution.living(), "all processes of the test gone")
        execution.output.close()


def test_a_run_ends_well_when_its_trainers_do_and_leaves_nothing_running(execute: Callable[..., Execution]) -> None:
    config = {"kind": "ConfigMap", "metadata": {"name": "fake-config"}, "data": {"config.yaml": "folder: /seele/run\n"}}
    run = execute(
        config,
        trainer(0, "--config=/etc/seele/config.yaml", servers=2),
        trainer(1, servers=2),
        server(0, "--child"),
        server(1),
    )

    assert run.wait() == 0, run.text()
    assert run.living() == []
    assert (run.folder / "config-seen.txt").read_text() == f"folder: {run.folder}\n"
    assert "step 3" in run.log("fake-trainer-1")
    assert "step 3/3  reward 0.50" in run.text()


def test_a_server_counts_as_ready_only_when_its_probe_succeeds(
    execute: Callable[..., Execution], tmp_path: Path
) -> None:
    signal_file = tmp_path / "ready"
    run = execute(trainer(0), server(0, f"--ready-when={signal_file}"))

    wait_for(lambda: "serving" in run.log("fake-rollout-0"), "the server listens")
    wait_for(lambda: "fake-rollout-0 starting" in run.text(), "its start is shown")
    assert "fake-rollout-0 ready" not in run.text()
    signal_file.touch()

    assert run.wait() == 0
    assert "fake-rollout-0 ready" in run.text()


def test_a_server_that_never_answers_is_stopped_and_fails_the_run(
    execute: Callable[..., Execution], tmp_path: Path
) -> None:
    probe = {"httpGet": {"path": "/health", "port": "http"}, "periodSeconds": 0.1, "failureThreshold": 5}
    run = execute(trainer(0, "--steps=-1"), server(0, f"--ready-when={tmp_path / 'never'}", startupProbe=probe))

    assert run.wait() == 1
    assert "fake-rollout-0 ended 3 times before it was ready" in run.text()
    assert "did not answer http://127.0.0.1:" in run.text()
    assert run.living() == []


def test_init_containers_come_first_and_their_failure_fails_the_pod(execute: Callable[..., Execution]) -> None:
    init = [
        {"name": "one", "command": ["python3", "-c", "print('first')"]},
        {"name": "two", "command": ["python3", "-c", "raise SystemExit('second fails')"]},
    ]
    run = execute(trainer(0, servers=0, spec={"initContainers": init}))

    assert run.wait() == 1
    assert run.log("fake-trainer-0").splitlines() == ["first", "second fails"]
    assert "fake-trainer-0: init container 'two' exited with code 1" in run.text()


def test_a_failing_trainer_fails_the_run_and_shows_the_end_of_its_log(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0, "--steps=2", "--exit=3"), trainer(1, "--steps=-1", "--stubborn"), server(0))

    assert run.wait() == 1
    assert "fake-trainer-0: container 'trainer' exited with code 3" in run.text()
    assert "  | ERROR something went wrong" in run.text()
    assert f"full log: {run.folder}/logs/fake-trainer-0.log" in run.text()
    assert run.living() == []


def test_a_server_that_dies_is_restarted_alone_and_the_trainer_continues(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0, "--kill-server-at=1"), server(0, "--child"))

    assert run.wait() == 0, run.text()
    assert run.log("fake-rollout-0").count("server starting") == 2
    assert run.log("fake-trainer-0").count("step 1") == 1
    assert "fake-rollout-0 restarting: container 'rollout' exited with code 9" in run.text()
    assert "fake-trainer-0 | WARNING the server is back" in run.text()


def test_a_server_that_cannot_start_fails_the_run_after_three_times(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0), server(0, "--exit=7"))

    assert run.wait() == 1
    assert run.log("fake-rollout-0").count("cannot load the model") == 3
    assert "exited with code 7" in run.text()
    assert run.living() == []


@pytest.mark.parametrize(("code", "ready"), [(0, False), (1, False), (0, True)])
def test_a_server_that_dies_twice_of_the_same_error_is_not_started_again(
    execute: Callable[..., Execution], code: int, ready: bool
) -> None:
    log = REPOSITORY / "tests" / "unit" / "data" / "server_logs" / "unsupported-head-dim.log"
    more = ["--ready-first"] if ready else []
    run = execute(trainer(0, "--steps=-1"), server(0, f"--exit={code}", f"--log={log}", *more))

    assert run.wait() == 1
    assert run.log("fake-rollout-0").count("server starting") == 2
    assert ("fake-rollout-0 ready" in run.text()) is ready
    text = run.text()
    assert "fake-rollout-0 ended twice at its start, for the same reason:" in text
    error = "RuntimeError: Unsupported CPU attention configuration: head_dim=16 isa=2 kv_cache_idx=0"
    how = "stopped by itself" if code == 0 else "exited with code 1"
    assert f"fake-rollout-0: container 'rollout' {how}\n  | {error}\n" in text
    assert f"fake-rollout-0 restarting: container 'rollout' {how}: {error}" in text
    assert "code 0" not in text
    assert "nanobind" not in text


def test_an_error_that_may_pass_is_tried_again(execute: Callable[..., Execution], tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("OSError: [Errno 98] Address already in use\n")
    run = execute(trainer(0, "--steps=-1"), server(0, "--exit=1", f"--log={log}"))

    assert run.wait() == 1
    assert run.log("fake-rollout-0").count("server starting") == 3
    assert "fake-rollout-0 ended 3 times before it was ready; the last time:" in run.text()


def test_a_program_that_does_not_exist_fails_the_run(execute: Callable[..., Execution]) -> None:
    broken = trainer(0)
    broken["spec"]["containers"][0]["command"] = ["no-such-program"]
    run = execute(broken, server(0))

    assert run.wait() == 1
    assert "cannot be started: no-such-program: No such file or directory" in run.text()


def test_ctrl_c_lets_the_trainers_save_and_leaves_nothing_running(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0, "--steps=-1"), server(0, "--child"))
    wait_for(lambda: "step 2" in run.log("fake-trainer-0"), "training")
    family = psutil.Process(run.process.pid).children(recursive=True)
    assert len(family) >= 4, "watchdog, trainer, server and its child"

    run.interrupt()

    assert run.wait() == 130
    assert (run.folder / "saved.txt").exists()
    wait_for(lambda: not any(process.is_running() for process in family), "all processes gone")


def test_a_second_ctrl_c_kills_what_does_not_want_to_stop(execute: Callable[..., Execution]) -> None:
    run = execute(
        trainer(0, "--steps=-1", "--stubborn", spec={"terminationGracePeriodSeconds": 3600}), server(0, "--child")
    )
    wait_for(lambda: "step 1" in run.log("fake-trainer-0"), "training")

    run.interrupt()
    wait_for(lambda: "press Ctrl-C again" in run.text(), "the first one is understood")
    run.interrupt()

    assert run.wait() == 130
    assert run.living() == []


def test_a_trainer_that_does_not_stop_is_killed_after_its_grace_period(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0, "--steps=-1", "--stubborn", spec={"terminationGracePeriodSeconds": 1}), server(0))
    wait_for(lambda: "step 1" in run.log("fake-trainer-0"), "training")

    run.interrupt()

    assert run.wait() == 130
    assert run.living() == []


def test_a_trainer_with_something_to_save_gets_the_time_it_takes(execute: Callable[..., Execution]) -> None:
    short = {"terminationGracePeriodSeconds": 1}
    run = execute(trainer(0, "--steps=-1", "--save-seconds=3", spec=short), server(0))
    wait_for(lambda: "reward 0.50" in run.text(), "training is shown")

    run.interrupt()

    assert run.wait() == 130
    assert "is saved first, and finished before that if its updates have begun; press Ctrl-C again" in run.text()
    assert (run.folder / "saved.txt").exists()


def test_nothing_survives_when_the_runner_itself_is_killed(execute: Callable[..., Execution]) -> None:
    run = execute(trainer(0, "--steps=-1", "--stubborn"), server(0, "--child"))
    wait_for(lambda: "step 1" in run.log("fake-trainer-0"), "training")
    family = psutil.Process(run.process.pid).children(recursive=True)
    assert len(family) >= 4, "watchdog, trainer, server and its child"

    run.process.send_signal(signal.SIGKILL)
    run.process.wait()

    gone, alive = psutil.wait_procs(family, timeout=10)
    assert alive == []
    assert len(gone) == len(family)


def test_a_folder_is_free_again_only_when_all_processes_of_its_last_run_are_gone(
    execute: Callable[..., Execution],
) -> None:
    first = execute(trainer(0, "--steps=-1", "--stubborn"), server(0, "--child"))
    wait_for(lambda: "step 1" in first.log("fake-trainer-0"), "training")

    second = execute(trainer(0), server(0))
    assert second.wait() == 1
    assert "is in use by another `seele run`" in second.text()
    assert "step 1" in first.log("fake-trainer-0"), "the first run is not disturbed"

    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    third = execute(trainer(0), server(0))
    while third.wait() == 1 and "is in use by another" in third.text():
        third = execute(trainer(0), server(0))
    assert third.process.returncode == 0, third.text()
    assert (third.folder / "attempt").read_text() == "2\n"


def test_ports_in_use_are_left_to_their_owner(execute: Callable[..., Execution]) -> None:
    with socket.socket() as other:
        with contextlib.suppress(OSError):
            other.bind(("127.0.0.1", 29400))
            other.listen()
        run = execute(trainer(0), server(0))

        assert run.wait() == 0, run.text()
    assert "step 3/3" in run.text(), "progress was found at another port"


def test_two_runs_at_once_do_not_take_each_others_ports(execute: Callable[..., Execution]) -> None:
    runs = [execute(trainer(0), server(0), folder=f"run-{number}") for number in range(2)]

    assert [run.wait() for run in runs] == [0, 0], [run.text() for run in runs]


def test_the_environment_of_the_caller_is_inherited(execute: Callable[..., Execution], monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_HOME", "/my/models")
    show = trainer(0, servers=0)
    show["spec"]["containers"][0]["command"] = ["python3", "-c", "import os; print(os.environ['HF_HOME'], os.getcwd())"]
    show["spec"]["containers"][0]["env"].append({"name": "HF_HOME", "value": "/seele/huggingface"})
    run = execute(show)

    assert run.wait() == 0
    assert run.log("fake-trainer-0").split() == ["/my/models", str(Path.cwd())]
