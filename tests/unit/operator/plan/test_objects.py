"""The objects of a SeeleRun. The golden files are the output of `seele render`; SEELE_UPDATE_GOLDEN=1 rewrites them."""

import os
from typing import Any

import pytest
import yaml

from seele_operator.api.seelerun import SeeleRun
from seele_operator.api.yaml_files import yaml_text
from seele_operator.plan import names
from seele_operator.plan.objects import ClusterFeatures, config_text, endpoints, plan, pod_names, support_objects
from seele_operator.plan.objects import pods as pods_of_attempt
from seele_operator.validation.load import load_run, parse_run
from seele_trainer.config import TrainerConfig
from tests.support import REPOSITORY
from tests.support.spec_data import environment, pods, run_with

DATA = REPOSITORY / "tests" / "unit" / "data" / "plan"
CLAIMS = {
    "run": {"persistentVolumeClaimTemplate": {"size": "500Gi", "storageClassName": "fast"}},
    "huggingFaceCache": {"persistentVolumeClaimTemplate": {"size": "50Gi", "retention": "Delete"}},
}


def in_cluster(run: SeeleRun) -> SeeleRun:
    """The run as stored by an API server."""
    body = run.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    body["metadata"] = {"name": "demo", "namespace": "lab", "uid": "0b5e"}
    return parse_run(body)


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


def test_planning_is_repeatable_and_does_not_change_the_run() -> None:
    run = load_run(DATA / "two-by-two.run.yaml")
    before = run.model_dump()

    assert plan(run, 1) == plan(run, 1)
    assert run.model_dump() == before
