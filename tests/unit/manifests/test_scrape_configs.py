"""The Prometheus configurations for runs and the operator: which pods they scrape, and with which labels."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from seele_operator.plan import objects as plan
from seele_operator.validation.load import parse_run
from seele_trainer.telemetry.rollout_metrics import ANSWER_SECONDS
from tests.support import REPOSITORY
from tests.support.prometheus_server import promtool
from tests.support.spec_data import small_run

FOLDER = REPOSITORY / "manifests" / "prometheus"
JOBS = {"seele-trainer": "/metrics", "seele-rollout": "/rollout/metrics", "seele-operator": "/metrics"}


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def pods() -> Iterator[tuple[dict[str, Any], str]]:
    """Pods of a run and of the operator with their phases, including one that has ended."""
    run = parse_run(small_run())
    planned = plan.pods(run, 3)
    for pod in planned.values():
        yield pod, "Running"
    over = next(pod for name, pod in planned.items() if name.endswith("trainer-0"))
    yield {**over, "metadata": {**over["metadata"], "name": "over-trainer-0"}}, "Succeeded"
    documents = yaml.safe_load_all((REPOSITORY / "manifests" / "operator.yaml").read_text())
    (deployment,) = [one for one in documents if one["kind"] == "Deployment"]
    metadata = {"name": "operator-1", "namespace": "seele-system", **deployment["spec"]["template"]["metadata"]}
    yield {"metadata": metadata, "spec": deployment["spec"]["template"]["spec"]}, "Running"


def first_trainer() -> dict[str, Any]:
    """The metadata of the pod that exports a run's metrics."""
    found: dict[str, Any] = next(pod["metadata"] for pod, _ in pods() if pod["metadata"]["name"].endswith("-trainer-0"))
    return found


def discovered() -> list[dict[str, Any]]:
    """The targets that Prometheus discovers in a cluster with these pods, one per port."""
    return [
        {
            "targets": [f"10.0.0.1:{port['containerPort']}"],
            "labels": {
                "__meta_kubernetes_namespace": pod["metadata"].get("namespace", "default"),
                "__meta_kubernetes_pod_name": pod["metadata"]["name"],
                "__meta_kubernetes_pod_phase": phase,
                "__meta_kubernetes_pod_container_port_name": port["name"],
                **{
                    f"__meta_kubernetes_pod_label_{re.sub(r'[^a-zA-Z0-9_]', '_', label)}": value
                    for label, value in pod["metadata"]["labels"].items()
                },
            },
        }
        for pod, phase in pods()
        for container in pod["spec"]["containers"]
        for port in container.get("ports", ())
    ]


def test_pods_of_runs_and_of_the_operator_are_found_with_their_labels(tmp_path: Path) -> None:
    config = load("scrape-config.yaml")
    assert {job["job_name"]: job.get("metrics_path", "/metrics") for job in config["scrape_configs"]} == JOBS
    (tmp_path / "pods.json").write_text(json.dumps(discovered()))
    for job in config["scrape_configs"]:
        # Not every build of Prometheus supports Kubernetes discovery; its result is given here.
        assert job.pop("kubernetes_sd_configs") == [{"role": "pod"}]
        job["file_sd_configs"] = [{"files": [str(tmp_path / "pods.json")]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))

    found = {}
    for job in JOBS:
        checked = promtool("check", "service-discovery", "--timeout=1s", tmp_path / "prometheus.yml", job)
        assert checked.returncode == 0, checked.stderr
        targets = [target["labels"] for target in json.loads(checked.stdout) if target["labels"]]
        found[job] = [
            {name: value for name, value in labels.items() if not name.startswith("__") or name == "__address__"}
            for labels in targets
        ]
    trainer = first_trainer()
    of_run = {
        "__address__": "10.0.0.1:9400",
        "instance": "10.0.0.1:9400",
        "namespace": trainer["namespace"],
        "pod": trainer["name"],
        "run": trainer["labels"]["seele.dev/run"],
        "attempt": "3",
    }
    assert found == {
        "seele-trainer": [{**of_run, "job": "seele-trainer"}],
        "seele-rollout": [{**of_run, "job": "seele-rollout"}],
        "seele-operator": [
            {
                "__address__": "10.0.0.1:9401",
                "instance": "10.0.0.1:9401",
                "job": "seele-operator",
                "namespace": "seele-system",
                "pod": "operator-1",
            }
        ],
    }


def test_the_local_configuration_is_valid_and_gives_the_same_labels() -> None:
    checked = promtool("check", "config", FOLDER / "local.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    jobs = {job["job_name"]: job for job in load("local.yaml")["scrape_configs"]}
    assert {name: job.get("metrics_path", "/metrics") for name, job in jobs.items()} == {
        name: path for name, path in JOBS.items() if name != "seele-operator"
    }
    for job in jobs.values():
        (group,) = job["static_configs"]
        assert set(group["labels"]) == {"namespace", "run", "attempt", "pod"}
    # A scrape may last until the next one, which is long enough for late servers.
    assert int(jobs["seele-rollout"]["scrape_interval"].removesuffix("s")) > ANSWER_SECONDS
    # Without an operator, its critical alert would always fire.
    assert "rule_files" not in load("local.yaml")


def test_monitors_of_the_prometheus_operator_select_the_same_pods_and_give_the_same_jobs() -> None:
    pod_monitor, service_monitor = load("podmonitor.yaml"), load("servicemonitor.yaml")
    wanted = pod_monitor["spec"]["selector"]["matchLabels"].items()
    assert [pod["metadata"]["name"] for pod, phase in pods() if wanted <= pod["metadata"]["labels"].items()] == [
        first_trainer()["name"],
        "over-trainer-0",
    ]
    given = {}
    for endpoint in (*pod_monitor["spec"]["podMetricsEndpoints"], *service_monitor["spec"]["endpoints"]):
        assert endpoint["port"] == "metrics"
        labels = {one["targetLabel"]: one for one in endpoint["relabelings"]}
        job = labels.pop("job")["replacement"]
        given[job] = endpoint["path"]
        kept = () if job == "seele-operator" else ("run", "attempt")
        assert {name: one["sourceLabels"] for name, one in labels.items()} == {
            name: [f"__meta_kubernetes_pod_label_seele_dev_{name}"] for name in kept
        }, job
    assert given == JOBS
