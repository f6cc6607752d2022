"""The objects of a SeeleRun. The golden files are the output of `seele render`; SEELE_UPDATE_GOLDEN=1 rewrites them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest
import yaml

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.types import RESERVED_ENVIRONMENT
from seele_operator.api.yaml_files import yaml_text
from seele_operator.plan import names
from seele_operator.plan.objects import ClusterFeatures, config_text, endpoints, plan, pod_names, support_objects
from seele_operator.plan.objects import pods as pods_of_attempt
from seele_operator.validation.load import load_run, parse_run
from seele_trainer.config import TrainerConfig
from tests.support import REPOSITORY

DATA = REPOSITORY / "tests" / "unit" / "data" / "plan"
CLAIMS = {
    "run": {"persistentVolumeClaimTemplate": {"size": "500Gi", "storageClassName": "fast"}},
    "huggingFaceCache": {"persistentVolumeClaimTemplate": {"size": "50Gi", "retention": "Delete"}},
}


def run_with(**spec: Any) -> SeeleRun:
    return parse_run(
        {
            "apiVersion": "seele.dev/v1alpha1",
            "kind": "SeeleRun",
            "metadata": {"name": "demo"},
            "spec": {"model": {"name": "org/model"}, "dataset": {"name": "org/data"}, **spec},
        }
    )


def in_cluster(run: SeeleRun) -> SeeleRun:
    """The run as stored by an API server."""
    body = run.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    body["metadata"] = {"name": "demo", "namespace": "lab", "uid": "0b5e"}
    return parse_run(body)


def pods(run: SeeleRun, attempt: int = 1) -> dict[str, dict[str, Any]]:
    return {manifest["metadata"]["name"]: manifest for manifest in plan(run, attempt) if manifest["kind"] == "Pod"}


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize("case", ["one-of-each", "two-by-two", "transformers", "gang"])
def test_the_plan_equals_the_golden_file(case: str) -> None:
    rendered = yaml_text(*plan(load_run(DATA / f"{case}.run.yaml"), attempt=2))
    golden = DATA / f"{case}.plan.yaml"
    if os.environ.get("SEELE_UPDATE_GOLDEN"):
        golden.write_text(rendered)

    assert rendered == golden.read_text()


def test_the_trainers_configuration_follows_from_the_spec() -> None:
    run = run_with(training={"learningRate": 1e-6}, hints={"targetAccuracy": 0.4})

    assert TrainerConfig.model_validate(yaml.safe_load(config_text(run))) == run.spec.trainer_config("demo")


def test_addresses_resolve_through_the_headless_services() -> None:
    run = run_with(rollout={"replicas": 2}, trainer={"replicas": 2})
    services = {m["metadata"]["name"]: m for m in plan(run, 1) if m["kind"] == "Service"}
    where = endpoints(run)

    for address in (where.rendezvous, *(url.removeprefix("http://") for url in (where.trainer, *where.rollout))):
        host, _, port = address.partition(":")
        pod_name, _, service_name = host.partition(".")
        pod, service = pods(run)[pod_name], services[service_name]
        assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == (pod_name, service_name)
        assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
        assert service["spec"]["clusterIP"] == "None"
        assert int(port) in [declared["port"] for declared in service["spec"]["ports"]]
        assert int(port) in [declared["containerPort"] for declared in pod["spec"]["containers"][0]["ports"]]


def test_the_transformers_engine_needs_no_servers() -> None:
    run = run_with(rollout={"engine": "transformers", "replicas": 3})

    assert list(pods(run)) == ["demo-trainer-0"]
    assert environment(pods(run)["demo-trainer-0"])["SEELE_ROLLOUT_URLS"] == ""
    assert endpoints(run).rollout == ()


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


def test_a_run_in_a_cluster_owns_its_objects() -> None:
    for manifest in plan(in_cluster(run_with()), 1):
        assert manifest["metadata"]["namespace"] == "lab"
        assert [owner["uid"] for owner in manifest["metadata"]["ownerReferences"]] == ["0b5e"]
    assert "ownerReferences" not in plan(run_with(), 1)[0]["metadata"]


def test_the_plan_lists_support_objects_before_pods() -> None:
    run = load_run(DATA / "two-by-two.run.yaml")

    assert plan(run, 3) == [*support_objects(run), *pods_of_attempt(run, 3).values()]
    assert list(pods_of_attempt(run, 3)) == list(pod_names(run)) == [
        *(f"two-by-two-trainer-{index}" for index in range(2)),
        *(f"two-by-two-rollout-{index}" for index in range(2)),
    ]  # fmt: skip
    assert all(manifest["kind"] != "Pod" for manifest in support_objects(run))


def test_every_object_has_the_runs_label() -> None:
    for gang in ("none", "volcano", "coscheduling"):
        run = run_with(scheduling={"gang": gang}, storage=CLAIMS)
        for manifest in plan(run, 1):
            assert manifest["metadata"]["labels"]["seele.dev/run"] == "demo"
            assert manifest["metadata"]["namespace"] == "default"


def test_objects_have_unique_names() -> None:
    run = run_with(trainer={"replicas": 2}, rollout={"replicas": 2}, scheduling={"gang": "volcano"}, storage=CLAIMS)
    keys = [(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"]) for manifest in plan(run, 1)]

    assert len(keys) == len(set(keys))


def test_another_number_of_servers_changes_only_the_list_that_the_trainers_read() -> None:
    """A live edit: existing pods are never changed, and only files in mounted folders follow (never by subPath)."""
    one, three = (run_with(rollout={"replicas": count}) for count in (1, 3))
    maps = [next(m for m in support_objects(run) if m["kind"] == "ConfigMap") for run in (one, three)]
    listed = [config_map["data"]["rollout-urls"].splitlines() for config_map in maps]

    assert listed == [list(endpoints(one).rollout), list(endpoints(three).rollout)]
    for name, pod in pods(one).items():
        later = pods(three)[name]
        if name == "demo-rollout-0":
            assert pod == later
        (mount,) = [m for m in pod["spec"]["containers"][0]["volumeMounts"] if m["name"] == "config"]
        assert mount == {"name": "config", "mountPath": "/etc/seele", "readOnly": True}
    assert environment(pods(one)["demo-trainer-0"])["SEELE_ROLLOUT_URLS_FILE"] == "/etc/seele/rollout-urls"


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


class TestClaims:
    def test_a_claim_is_named_after_the_run_and_mounted(self) -> None:
        run = run_with(storage=CLAIMS)
        claims = {m["metadata"]["name"]: m for m in support_objects(run) if m["kind"] == "PersistentVolumeClaim"}

        assert claims["demo-run"]["spec"] == {
            "storageClassName": "fast",
            "accessModes": ["ReadWriteMany"],
            "resources": {"requests": {"storage": "500Gi"}},
        }
        # Absent for the cluster's default class: an empty name means no class.
        assert "storageClassName" not in claims["demo-huggingface"]["spec"]
        for pod in pods(run).values():
            mounted = {volume["name"]: volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"]}
            assert (mounted["run"], mounted["huggingface"]) == (
                {"claimName": "demo-run"},
                {"claimName": "demo-huggingface"},
            )

    def test_checkpoints_outlive_the_run_unless_retention_is_delete(self) -> None:
        run = in_cluster(run_with(storage=CLAIMS))
        claims = {m["metadata"]["name"]: m for m in support_objects(run) if m["kind"] == "PersistentVolumeClaim"}

        assert "ownerReferences" not in claims["demo-run"]["metadata"]
        assert [owner["uid"] for owner in claims["demo-huggingface"]["metadata"]["ownerReferences"]] == ["0b5e"]


class TestProtection:
    def policies(self, run: SeeleRun) -> dict[str, dict[str, Any]]:
        return {m["metadata"]["name"]: m["spec"] for m in support_objects(run) if m["kind"] == "NetworkPolicy"}

    def test_only_the_runs_trainers_reach_its_servers(self) -> None:
        policy = self.policies(run_with())["demo-rollout"]
        own = {"matchLabels": {"seele.dev/run": "demo", "seele.dev/role": "trainer"}}

        assert policy["podSelector"]["matchLabels"] == {"seele.dev/run": "demo", "seele.dev/role": "rollout"}
        assert policy["ingress"] == [
            {"from": [{"podSelector": own}], "ports": [{"protocol": "TCP", "port": names.ROLLOUT_PORT}]}
        ]

    def test_trainers_reach_each_other_and_anyone_reaches_their_metrics(self) -> None:
        policy = self.policies(run_with())["demo-trainer"]
        own = policy["podSelector"]

        assert own["matchLabels"] == {"seele.dev/run": "demo", "seele.dev/role": "trainer"}
        assert policy["ingress"] == [
            {"from": [{"podSelector": own}]},
            {"ports": [{"protocol": "TCP", "port": names.METRICS_PORT}]},
        ]

    def test_egress_is_not_restricted(self) -> None:
        for policy in self.policies(run_with()).values():
            assert policy["policyTypes"] == ["Ingress"]

    def test_without_servers_there_is_no_policy_for_them(self) -> None:
        assert list(self.policies(run_with(rollout={"engine": "transformers"}))) == ["demo-trainer"]

    @pytest.mark.parametrize("version", ["policy/v1", "policy/v1beta1"])
    def test_the_budget_protects_all_trainers(self, version: Any) -> None:
        run = run_with(trainer={"replicas": 3})
        (budget,) = [m for m in plan(run, 1, ClusterFeatures(version)) if m["kind"] == "PodDisruptionBudget"]

        assert budget["apiVersion"] == version
        assert budget["spec"]["minAvailable"] == 3
        selected = [
            name
            for name, pod in pods(run).items()
            if budget["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ]
        assert selected == ["demo-trainer-0", "demo-trainer-1", "demo-trainer-2"]

    def test_a_disabled_budget_protects_no_pod(self) -> None:
        run = run_with(runPolicy={"podDisruptionBudget": False})
        (budget,) = [m for m in support_objects(run) if m["kind"] == "PodDisruptionBudget"]

        assert budget["spec"]["minAvailable"] == 0


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
            yield ("127.0.0.1", server.server_port)
            server.shutdown()

    def program(self, run: SeeleRun) -> str:
        command = pods(run)["demo-rollout-0"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert command[:2] == ["python3", "-c"]
        return str(command[2])

    def drain(self, address: tuple[str, int], grace: int, notice: float) -> list[str]:
        """The program with its trainer at `address`, and with another `notice`."""
        program = self.program(run_with(runPolicy={"terminationGracePeriodSeconds": grace}))
        where = repr((names.host("demo", "trainer", 0), names.METRICS_PORT))
        assert where in program
        before, noticed, after = program.partition(f"else {min(25, grace - 5)})")
        assert noticed
        changed = f"{before}else {min(notice, grace - 5)}){after}"
        return [sys.executable, "-c", changed.replace(where, repr(address))]


def test_planning_is_repeatable_and_does_not_change_the_run() -> None:
    run = load_run(DATA / "two-by-two.run.yaml")
    before = run.model_dump()

    assert plan(run, 1) == plan(run, 1)
    assert run.model_dump() == before


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
