"""How a plan becomes processes of one machine: expansion, paths, addresses, ports, probes, devices, logs."""

import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from seele_operator.local.accelerator import adapt, adapt_to_cpu, gpus, requested_gpus
from seele_operator.local.executor import run_locally
from seele_operator.local.logs import Follower, last_lines
from seele_operator.local.pod import Verdict
from seele_operator.local.ports import declared, reserved
from seele_operator.local.translate import (
    CannotRunHere,
    Machine,
    Probe,
    Rewriting,
    expand,
    files_of,
    move_paths,
    translate,
)
from seele_operator.plan.objects import plan
from seele_operator.validation.load import load_run
from tests.support import REPOSITORY

PLANS = REPOSITORY / "tests" / "unit" / "data" / "plan"


def pods_of(case: str) -> list[dict[str, Any]]:
    return [m for m in plan(load_run(PLANS / f"{case}.run.yaml"), 1) if m["kind"] == "Pod"]


def machine_for(pods: list[dict[str, Any]], folder: Path = Path("/home/me/runs/one"), **environment: str) -> Machine:
    ports = {key: 20000 + number for number, key in enumerate(declared(pods))}
    return Machine(folder, "/venv/bin/python", {"HOME": "/home/me", **environment}, ports)


class TestExpansion:
    @pytest.mark.parametrize(
        ("text", "expanded"),
        [
            ("--port=$(PORT)", "--port=8000"),
            ("$(UNKNOWN) stays", "$(UNKNOWN) stays"),
            ("$$(PORT) is escaped", "$(PORT) is escaped"),
            ("$PORT and ${PORT} are the shell's", "$PORT and ${PORT} are the shell's"),
            ("$(HOST):$(PORT)", "pod:8000"),
        ],
    )
    def test_variables_expand_as_in_kubernetes(self, text: str, expanded: str) -> None:
        assert expand(text, {"PORT": "8000", "HOST": "pod"}) == expanded

    @given(st.text(alphabet=st.characters(exclude_characters="$")))
    def test_text_without_a_dollar_is_left_alone(self, text: str) -> None:
        assert expand(text, {"A": "b"}) == text


class TestPaths:
    @pytest.mark.parametrize(
        ("text", "moved"),
        [
            ("/seele/run/weights", "/home/me/runs/one/weights"),
            ("--model=/seele/run/weights", "--model=/home/me/runs/one/weights"),
            ("/seele/run", "/home/me/runs/one"),
            ("/seele/runs/x", "/other/runs/x"),
            ("/var/seele/run", "/var/seele/run"),
            ("a:/etc/seele/config.yaml,b:/seele/x", "a:/plan/config.yaml,b:/other/x"),
        ],
    )
    def test_only_whole_mounts_are_moved(self, text: str, moved: str) -> None:
        folders = {"/seele/run": "/home/me/runs/one", "/seele": "/other", "/etc/seele": "/plan"}

        assert move_paths(text, folders) == moved


class TestAddresses:
    def test_addresses_of_pods_become_local_ones_with_or_without_a_namespace(self) -> None:
        pods = pods_of("two-by-two")
        rewrite = Rewriting(pods, {("two-by-two-rollout-1", 8000): 20001})

        for domain in ("", ".research", ".research.svc", ".research.svc.cluster.local"):
            assert rewrite(f"http://two-by-two-rollout-1.two-by-two-rollout{domain}:8000/v1") == (
                "http://127.0.0.1:20001/v1"
            )

    @pytest.mark.parametrize(
        "foreign",
        [
            "http://hub.example:8000",
            "two-by-two-rollout-1.two-by-two-rollout:9999",
            "my-two-by-two-rollout-1.two-by-two-rollout:8000",
            "two-by-two-rollout-1:8000",
        ],
    )
    def test_other_addresses_stay(self, foreign: str) -> None:
        rewrite = Rewriting(pods_of("two-by-two"), {("two-by-two-rollout-1", 8000): 20001})

        assert rewrite(foreign) == foreign


class TestTranslation:
    def test_a_trainer_finds_its_folder_its_configuration_and_the_servers(self) -> None:
        pods = pods_of("two-by-two")
        machine = machine_for(pods)
        local = translate(pods[1], pods, machine)
        environment = local.main.environment

        config = "/home/me/runs/one/plan/two-by-two-config/config.yaml"
        assert local.main.arguments == (
            "/venv/bin/python", "-m", "seele_operator.cli", "train", "--config", config,
        )  # fmt: skip
        assert environment["SEELE_RUN_DIR"] == "/home/me/runs/one"
        assert environment["SEELE_NODE_RANK"] == "1"
        assert environment["SEELE_RENDEZVOUS"] == f"127.0.0.1:{machine.ports['two-by-two-trainer-0', 29500]}"
        assert environment["SEELE_ROLLOUT_URLS"] == ",".join(
            f"http://127.0.0.1:{machine.ports[f'two-by-two-rollout-{index}', 8000]}" for index in range(2)
        )
        assert environment["SEELE_HTTP_PORT"] == str(machine.ports["two-by-two-trainer-1", 9400])
        assert environment["SEELE_BIND_HOST"] == "127.0.0.1"
        assert local.grace_seconds == 120
        # Only the user ends a save.
        assert "SEELE_GRACE_SECONDS" not in environment

    def test_a_server_listens_on_its_own_local_port(self) -> None:
        pods = pods_of("two-by-two")
        machine = machine_for(pods)
        local = translate(pods[3], pods, machine)
        port = machine.ports["two-by-two-rollout-1", 8000]

        assert local.main.arguments[:5] == (
            "/venv/bin/python", "-m", "vllm.entrypoints.cli.main", "serve", "/home/me/runs/one/weights/initial",
        )  # fmt: skip
        assert {"--host=127.0.0.1", f"--port={port}"} <= set(local.main.arguments)
        assert local.readiness is not None
        assert local.readiness.url == f"http://127.0.0.1:{port}/health"
        assert [command.container for command in local.init] == ["prepare-model"]
        assert local.init[0].arguments[-1] == "/home/me/runs/one/weights/initial"

    def test_the_folder_of_the_run_is_this_machines_whatever_the_node_would_have(self) -> None:
        pods = pods_of("transformers")
        local = translate(pods[0], pods, machine_for(pods))

        assert pods[0]["spec"]["initContainers"][0]["name"] == "prepare-folder"
        assert local.init == ()
        assert local.main.environment["SEELE_RUN_DIR"] == "/home/me/runs/one"

    def test_the_users_home_and_model_cache_stay_theirs(self) -> None:
        pods = pods_of("two-by-two")
        environment = translate(pods[0], pods, machine_for(pods, HF_HOME="/big/models")).main.environment

        assert environment["HOME"] == "/home/me"
        assert environment["HF_HOME"] == "/big/models"
        assert "HF_HOME" not in translate(pods[0], pods, machine_for(pods)).main.environment

    def test_a_secret_of_the_cluster_is_what_the_user_has_in_the_environment(self) -> None:
        pods = pods_of("two-by-two")

        assert translate(pods[0], pods, machine_for(pods, HF_TOKEN="mine")).main.environment["HF_TOKEN"] == "mine"
        assert "HF_TOKEN" not in translate(pods[0], pods, machine_for(pods)).main.environment

    def test_fields_of_the_pod_are_known_here_too(self) -> None:
        pods = pods_of("one-of-each")
        field = {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
        pods[0]["spec"]["containers"][0]["env"].append(field)

        assert translate(pods[0], pods, machine_for(pods)).main.environment["ME"] == "one-trainer-0"

    def test_a_host_path_is_the_same_path(self) -> None:
        pods = pods_of("one-of-each")
        pods[0]["spec"]["volumes"].append({"name": "corpora", "hostPath": {"path": "/data/corpora/"}})
        pods[0]["spec"]["containers"][0]["volumeMounts"].append({"name": "corpora", "mountPath": "/corpora"})
        pods[0]["spec"]["containers"][0]["env"].append({"name": "CORPUS", "value": "/corpora/a.jsonl"})

        assert translate(pods[0], pods, machine_for(pods)).main.environment["CORPUS"] == "/data/corpora/a.jsonl"

    def test_a_sidecar_is_not_run_and_a_note_says_so(self) -> None:
        pods = pods_of("one-of-each")
        pods[0]["spec"]["containers"].append({"name": "logs", "image": "fluentd"})

        assert "container 'logs'" in translate(pods[0], pods, machine_for(pods)).notes[0]

    def test_a_container_that_is_only_an_image_cannot_run_here(self) -> None:
        pods = pods_of("one-of-each")
        del pods[0]["spec"]["containers"][0]["command"]

        with pytest.raises(CannotRunHere, match="one-trainer-0: container 'trainer' has no command"):
            translate(pods[0], pods, machine_for(pods))

    def test_the_config_map_becomes_files(self) -> None:
        objects = plan(load_run(PLANS / "one-of-each.run.yaml"), 1)
        pods = pods_of("one-of-each")
        files = files_of([objects[0]], machine_for(pods), pods)

        folder = Path("/home/me/runs/one/plan/one-config")
        assert list(files) == [folder / "config.yaml", folder / "rollout-urls"]
        assert yaml.safe_load(files[folder / "config.yaml"])["name"] == "one"

    def test_a_trainer_reads_the_local_addresses_of_the_servers_in_its_file(self) -> None:
        objects = plan(load_run(PLANS / "two-by-two.run.yaml"), 1)
        pods = pods_of("two-by-two")
        machine = machine_for(pods)
        files = files_of([manifest for manifest in objects if manifest["kind"] == "ConfigMap"], machine, pods)
        environment = translate(pods[0], pods, machine).main.environment

        text = files[Path(environment["SEELE_ROLLOUT_URLS_FILE"])]
        assert text.splitlines() == environment["SEELE_ROLLOUT_URLS"].split(",")
        assert "http://127.0.0.1:" in text


class TestPorts:
    def test_every_declared_port_gets_one_of_its_own(self) -> None:
        wanted = declared(pods_of("two-by-two"))

        with reserved(wanted) as ports:
            assert set(ports) == set(wanted)
            assert len(set(ports.values())) == len(wanted) == 6

    def test_a_port_in_use_is_not_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            taken = other.getsockname()[1]
            with reserved([("pod", taken)]) as ports:
                assert ports["pod", taken] != taken

    def test_a_reserved_port_admits_its_server_but_no_other_reservation(self) -> None:
        with reserved([("pod", 23456)]) as mine, reserved([("pod", 23456)]) as theirs:
            assert mine["pod", 23456] != theirs["pod", 23456]
            with socket.create_server(("127.0.0.1", mine["pod", 23456])) as server:
                socket.create_connection(server.getsockname()).close()


class TestProbes:
    PROBE = Probe("http://127.0.0.1:1/", failure_threshold=3, success_threshold=2)

    def after(self, answers: str, passing: bool = False) -> Verdict:
        verdict = Verdict(passing)
        for answer in answers:
            verdict = verdict.after(answer == "+", self.PROBE)
        return verdict

    @pytest.mark.parametrize(
        ("answers", "passing"),
        [("", False), ("+", False), ("++", True), ("+-+", False), ("++--", True), ("++---", False), ("++---+", False)],
    )
    def test_it_takes_several_answers_in_a_row_to_change_a_verdict(self, answers: str, passing: bool) -> None:
        assert self.after(answers).passing is passing

    def test_failures_count_only_in_a_row(self) -> None:
        assert not self.after("--+--", passing=True).exhausted(self.PROBE)
        assert self.after("+---", passing=True).exhausted(self.PROBE)


class TestDevices:
    def test_a_server_on_a_cpu_gets_what_vllm_needs_there(self) -> None:
        server = adapt_to_cpu(pods_of("one-of-each")[1], threads=2)["spec"]["containers"][0]
        environment = {entry["name"]: entry["value"] for entry in server["env"]}

        assert {"--enforce-eager", "--kv-cache-memory-bytes=1073741824", "--dtype=bfloat16"} <= set(server["args"])
        assert environment["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
        assert environment["OMP_NUM_THREADS"] == "2"

    def test_a_server_for_gpus_is_started_by_its_module_on_a_cpu(self) -> None:
        server = adapt_to_cpu(pods_of("two-by-two")[2], threads=2)["spec"]["containers"][0]

        assert server["command"] == ["python3", "-m", "vllm.entrypoints.openai.api_server"]
        assert server["args"][0] == "--model=/seele/run/weights/initial"

    def test_what_a_run_gives_itself_stays(self) -> None:
        pod = pods_of("one-of-each")[1]
        pod["spec"]["containers"][0]["args"] += ["--kv-cache-memory-bytes=7", "--enforce-eager"]
        pod["spec"]["containers"][0]["env"].append({"name": "VLLM_ENABLE_V1_MULTIPROCESSING", "value": "1"})
        server = adapt_to_cpu(pod, threads=2)["spec"]["containers"][0]

        assert [argument for argument in server["args"] if "kv-cache" in argument] == ["--kv-cache-memory-bytes=7"]
        assert server["args"].count("--enforce-eager") == 1
        assert [e["value"] for e in server["env"] if e["name"] == "VLLM_ENABLE_V1_MULTIPROCESSING"] == ["1"]

    def test_gpus_that_are_not_there_are_left_out_with_a_note(self) -> None:
        adapted, notes = adapt(pods_of("two-by-two"), devices=[], cores=4)

        assert "two-by-two-trainer-0" in notes[0]
        assert "nvidia.com/gpu" in notes[0]
        assert {"name": "DS_ACCELERATOR", "value": "cpu"} in adapted[0]["spec"]["containers"][0]["env"]

    @pytest.mark.parametrize("amount", [2, "2", "2000m", "2e0", "0.2e1", "0"])
    def test_gpus_are_counted_in_every_spelling_of_a_quantity(self, amount: int | str) -> None:
        pod = {"spec": {"containers": [{"resources": {"limits": {"nvidia.com/gpu": amount}}}, {}]}}

        assert requested_gpus(pod) == (0 if amount == "0" else 2)

    @pytest.mark.parametrize(("count", "shared"), [(12, False), (8, True)])
    def test_gpus_are_dealt_out_one_pod_after_the_other(self, count: int, shared: bool) -> None:
        adapted, notes = adapt(pods_of("two-by-two"), devices=[str(number) for number in range(count)], cores=4)
        visible = [
            entry["value"]
            for pod in adapted
            for entry in pod["spec"]["containers"][0]["env"]
            if entry["name"] == "CUDA_VISIBLE_DEVICES"
        ]

        assert visible[:2] == ["0,1,2,3", "4,5,6,7"]
        assert visible[2:] == (["0,1", "2,3"] if shared else ["8,9", "10,11"])
        assert bool(notes) is shared

    @pytest.mark.parametrize(
        ("environment", "expected"),
        [({}, ["0", "1", "10"]), ({"CUDA_VISIBLE_DEVICES": "1"}, ["1"]), ({"CUDA_VISIBLE_DEVICES": ""}, [])],
    )
    def test_the_users_choice_of_gpus_counts(
        self, environment: dict[str, str], expected: list[str], tmp_path: Path
    ) -> None:
        for device in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "null"):
            (tmp_path / device).touch()

        assert gpus(environment, tmp_path) == expected


class TestLogs:
    def test_a_follower_reads_whole_lines_once(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        follower = Follower(log)
        assert follower.lines() == []

        log.write_bytes(b"one\ntw")
        assert follower.lines() == ["one"]
        log.write_bytes(b"one\ntwo\n 10%\r 90%\n\xff\n")
        assert follower.lines() == ["two", " 90%", "\ufffd"]
        assert follower.lines() == []

    def test_the_last_lines_are_those_of_this_life_that_say_something(self, tmp_path: Path) -> None:
        log = tmp_path / "a.log"
        log.write_text("".join(f"line {number}\n\n" for number in range(100_000)))
        began = log.stat().st_size

        assert last_lines(log, 0)[-2:] == ["line 99998", "line 99999"]
        assert len(last_lines(log, 0)) < 100_000
        assert last_lines(log, began) == []
        with log.open("a") as file:
            file.write("the next life\n")
        assert last_lines(log, began) == ["the next life"]
        assert last_lines(tmp_path / "none.log", 0) == []


def test_a_plan_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("in the way")
    config_map = {"kind": "ConfigMap", "metadata": {"name": "one"}, "data": {"config.yaml": ""}}

    with pytest.raises(CannotRunHere, match=r"^--out: .*plan.* cannot be written: .*; free space there, or give"):
        run_locally([config_map], tmp_path)
