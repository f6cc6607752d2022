"""The pods of a SeeleRun: environment, command lines, security, folders of the node, and how they stop."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from unittest.mock import patch

import pytest

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import RESERVED_ENVIRONMENT
from seele_operator.plan import names
from tests.support.spec_data import environment, pods, run_with


def test_the_attempt_is_on_every_pod_and_in_every_trainer() -> None:
    for pod in pods(run_with(trainer={"replicas": 2}), attempt=7).values():
        assert pod["metadata"]["labels"]["seele.dev/attempt"] == "7"
        if pod["metadata"]["labels"]["seele.dev/role"] == "trainer":
            assert environment(pod)["SEELE_ATTEMPT"] == "7"


def test_environment_variables_are_unique_and_the_users_value_wins() -> None:
    pod = pods(run_with(trainer={"env": [{"name": "PYTHONUNBUFFERED", "value": "0"}]}))["demo-trainer-0"]
    given = [entry["name"] for entry in pod["spec"]["containers"][0]["env"]]

    assert len(given) == len(set(given))
    assert environment(pod)["PYTHONUNBUFFERED"] == "0"


def test_a_run_cannot_set_what_the_plan_sets() -> None:
    for pod in pods(run_with()).values():
        own = {name for name in environment(pod) if name.startswith("SEELE_") or name == "HF_HOME"}
        assert all(name.startswith("SEELE_") or name in RESERVED_ENVIRONMENT for name in own)


def test_flags_of_vllm_follow_from_the_spec() -> None:
    rollout = {"engineArgs": {"enforce-eager": True, "enable-lora": False, "gpu-memory-utilization": 0.8}}
    arguments = pods(run_with(rollout=rollout))["demo-rollout-0"]["spec"]["containers"][0]["args"]

    assert "--enforce-eager" in arguments
    assert "--gpu-memory-utilization=0.8" in arguments
    assert not [argument for argument in arguments if "enable-lora" in argument or "max-model-len" in argument]


@pytest.mark.parametrize(
    ("resources", "first"),
    [
        ({"limits": {"nvidia.com/gpu": 1, "memory": "64Gi"}}, ["vllm", "serve", names.INITIAL_WEIGHTS]),
        ({"requests": {"memory": "2Gi"}}, ["python3", "-m", "vllm.entrypoints.openai.api_server"]),
    ],
)
def test_vllm_serve_starts_servers_with_a_device_and_the_module_all_others(
    resources: dict[str, Any], first: list[str]
) -> None:
    container = pods(run_with(rollout={"resources": resources}))["demo-rollout-0"]["spec"]["containers"][0]

    assert [*container["command"], *container["args"]][:3] == first


@pytest.mark.parametrize(
    ("spec", "length"),
    [
        ({"model": {"name": "org/model", "contextLength": 4096}}, "4096"),
        ({"model": {"name": "org/model", "contextLength": 4096}, "rollout": {"maxModelLen": 2048}}, "2048"),
    ],
)
def test_the_length_of_servers_is_their_own_or_the_models(spec: dict[str, Any], length: str) -> None:
    arguments = pods(run_with(**spec))["demo-rollout-0"]["spec"]["containers"][0]["args"]

    assert f"--max-model-len={length}" in arguments


def test_nothing_runs_as_root_or_writes_outside_its_volumes() -> None:
    for pod in pods(run_with(trainer={"replicas": 2})).values():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            confined = container["securityContext"]
            assert confined["readOnlyRootFilesystem"] is True
            assert confined["allowPrivilegeEscalation"] is False
            mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            assert {"/seele/run", "/tmp", "/dev/shm"} <= set(mounted)
            assert set(mounted.values()) <= {volume["name"] for volume in spec["volumes"]}


def test_the_status_of_a_pod_holds_the_end_of_each_containers_log() -> None:
    run = run_with(trainer={"replicas": 2}, storage={"run": {"hostPath": {"path": "/data/demo"}}})

    for pod in pods(run).values():
        for container in (*pod["spec"]["containers"], *pod["spec"]["initContainers"]):
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


class TestFoldersOfTheNode:
    """The kubelet creates them for root, but no process of a run is root."""

    STORAGE: ClassVar = {
        "run": {"hostPath": {"path": "/data/demo"}},
        "huggingFaceCache": {"hostPath": {"path": "/data/models"}},
    }

    def test_an_init_container_gives_them_to_the_pods_user(self) -> None:
        for pod in pods(run_with(storage=self.STORAGE)).values():
            first = pod["spec"]["initContainers"][0]
            assert first["name"] == names.PREPARE_FOLDER
            assert first["command"] == ["chown", "1000:1000", "/seele/run", "/seele/huggingface"]
            assert [mount["name"] for mount in first["volumeMounts"]] == ["run", "huggingface"]

    def test_the_init_container_is_root_with_a_single_capability(self) -> None:
        security = pods(run_with(storage=self.STORAGE))["demo-trainer-0"]["spec"]["initContainers"][0][
            "securityContext"
        ]

        assert (security["runAsUser"], security["runAsNonRoot"]) == (0, False)
        assert security["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False

    def test_they_are_given_to_the_templates_user(self) -> None:
        template = {"spec": {"securityContext": {"runAsUser": 2000}}}
        pod = pods(run_with(storage=self.STORAGE, trainer={"podTemplate": template}))["demo-trainer-0"]

        assert pod["spec"]["securityContext"]["runAsUser"] == 2000
        assert pod["spec"]["initContainers"][0]["command"][1] == "2000:1000"

    @pytest.mark.parametrize("volume", [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "runs"}}])
    def test_other_volumes_need_no_root(self, volume: dict[str, Any]) -> None:
        for pod in pods(run_with(storage={"run": volume, "huggingFaceCache": volume})).values():
            assert names.PREPARE_FOLDER not in [init["name"] for init in pod["spec"].get("initContainers", ())]

    def test_other_folders_are_not_given_away(self) -> None:
        storage = {"run": {"persistentVolumeClaim": {"claimName": "runs"}}, "huggingFaceCache": self.STORAGE["run"]}
        init = pods(run_with(storage=storage))["demo-trainer-0"]["spec"]["initContainers"]

        assert [container["command"][2:] for container in init] == [["/seele/huggingface"]]


def test_a_pod_template_cannot_change_who_a_pod_is() -> None:
    template = {
        "metadata": {"labels": {"team": "nlp", "seele.dev/role": "rollout"}},
        "spec": {"restartPolicy": "Always", "hostname": "other"},
    }
    pod = pods(run_with(trainer={"podTemplate": template}))["demo-trainer-0"]

    assert pod["metadata"]["labels"]["team"] == "nlp"
    assert pod["metadata"]["labels"]["seele.dev/role"] == "trainer"
    assert pod["spec"]["restartPolicy"] == "Never"
    assert pod["spec"]["hostname"] == "demo-trainer-0"


class TestEnvironment:
    def test_environment_variables_reach_their_container(self) -> None:
        run = run_with(
            trainer={"env": [{"name": "NCCL_SOCKET_IFNAME", "value": "eth1"}]},
            rollout={"env": [{"name": "NCCL_P2P_DISABLE", "value": "1"}]},
        )

        assert environment(pods(run)["demo-trainer-0"])["NCCL_SOCKET_IFNAME"] == "eth1"
        assert environment(pods(run)["demo-rollout-0"])["NCCL_P2P_DISABLE"] == "1"
        assert "NCCL_SOCKET_IFNAME" not in environment(pods(run)["demo-rollout-0"])

    def test_only_containers_that_download_get_the_token_from_the_secret(self) -> None:
        run = run_with(storage={"huggingFaceTokenSecret": {"name": "hub", "key": "read"}})
        expected = {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "read"}}}
        trainer, rollout = (pods(run)[f"demo-{role}-0"]["spec"] for role in ("trainer", "rollout"))

        assert expected in trainer["containers"][0]["env"]
        assert expected in rollout["initContainers"][0]["env"]
        assert "HF_TOKEN" not in [entry["name"] for entry in rollout["containers"][0]["env"]]

    def test_shared_memory_has_the_requested_size(self) -> None:
        for pod in pods(run_with(storage={"sharedMemory": "32Gi"})).values():
            (volume,) = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "shared-memory"]
            assert volume["emptyDir"] == {"medium": "Memory", "sizeLimit": "32Gi"}


class TestStopping:
    def test_the_liveness_probe_outlasts_a_weight_sync(self) -> None:
        server = pods(run_with(rollout={"syncTimeoutSeconds": 900}))["demo-rollout-0"]["spec"]["containers"][0]
        probe = server["livenessProbe"]

        assert probe["periodSeconds"] * (probe["failureThreshold"] - 1) > 900

    def test_hung_containers_are_killed_soon_and_trainers_know_how_long_they_have(self) -> None:
        for pod in pods(run_with(trainer={"replicas": 2})).values():
            assert pod["spec"]["terminationGracePeriodSeconds"] == 1800
            container = pod["spec"]["containers"][0]
            probes = [container[kind] for kind in ("startupProbe", "livenessProbe") if kind in container]
            assert [probe["terminationGracePeriodSeconds"] for probe in probes] == [30] * len(probes)
            if container["name"] == "trainer":
                assert environment(pod)["SEELE_GRACE_SECONDS"] == "1800"

    def test_a_server_serves_a_stopping_trainer_until_it_is_gone(self) -> None:
        # Its notice is long over by then.
        with self.trainer({"stopping": True}) as address:
            waiting = subprocess.Popen(self.drain(address, grace=65, notice=0.5))
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(3)

        assert waiting.wait(10) == 0

    @pytest.mark.parametrize(
        ("progress", "grace", "notice", "seconds"),
        [
            ({"stopping": False}, 65, 2, 2),  # only this server is drained
            ({"stopping": True}, 8, 25, 3),
            ({"step": 3}, 65, 25, 0),  # not a trainer of this version
        ],
    )
    def test_a_server_waits_no_longer_than_it_is_needed(
        self, progress: dict[str, Any], grace: int, notice: float, seconds: float
    ) -> None:
        with self.trainer(progress) as address:
            began = time.monotonic()
            assert subprocess.run(self.drain(address, grace, notice), timeout=30, check=False).returncode == 0

        assert seconds <= time.monotonic() - began < seconds + 8

    @contextmanager
    def trainer(self, progress: dict[str, Any]) -> Iterator[tuple[str, int]]:
        """A trainer that answers with this progress until the end of the block."""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/progress"
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(progress).encode())

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever).start()
            try:
                yield ("127.0.0.1", server.server_port)
            finally:
                server.shutdown()

    def program(self, run: SeeleRun) -> str:
        command = pods(run)["demo-rollout-0"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[:2] == ["python3", "-c"]
        return str(command[2])

    def drain(self, address: tuple[str, int], grace: int, notice: float) -> list[str]:
        """The program with its trainer at `address`, and with another `notice`."""
        with patch("seele_operator.plan.probes.NOTICE_SECONDS", notice):
            program = self.program(run_with(runPolicy={"terminationGracePeriodSeconds": grace}))
        where = repr((names.host("demo", "trainer", 0), names.METRICS_PORT))
        assert where in program
        return [sys.executable, "-c", program.replace(where, repr(address))]


def test_pods_that_share_a_folder_of_their_node_prefer_one_node() -> None:
    def affinities(**spec: Any) -> list[Any]:
        return [pod["spec"].get("affinity") for pod in pods(run_with(**spec)).values()]

    folder = {"run": {"hostPath": {"path": "/data"}}}
    for affinity in affinities(storage=folder):
        [wish] = affinity["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
        assert wish["podAffinityTerm"]["labelSelector"]["matchLabels"] == {"seele.dev/run": "demo"}
    node = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    assert {tuple(affinity) for affinity in affinities(storage=folder, scheduling={"affinity": node})} == {
        ("nodeAffinity", "podAffinity")
    }
    # The user's own affinity wins, and shared claims need none.
    own = {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}}
    assert affinities(storage=folder, scheduling={"affinity": own}) == [own] * len(affinities(storage=folder))
    once, many = (
        {"run": {"persistentVolumeClaimTemplate": {"size": "1Gi", "accessModes": [mode]}}}
        for mode in ("ReadWriteOnce", "ReadWriteMany")
    )
    assert affinities(storage=once) == affinities(storage=folder)
    assert affinities(storage=many) == [None, None]
    assert affinities(storage={"run": {"persistentVolumeClaim": {"claimName": "shared"}}}) == [None, None]
