"""A real Prometheus has seen a whole run: every documented metric, vLLM's own, and no alert."""

import math
import re
from pathlib import Path

import pytest

from seele_trainer.telemetry.rollout_metrics import MAX_ANSWER_BYTES
from tests.e2e.runs import records
from tests.e2e.watched_run import CHECKPOINTS, LABELS, STEPS, QuickstartRun
from tests.support import REPOSITORY
from tests.support.prometheus_server import RULES, complaints_about_metrics
from tools.metrics_page import VLLM_ROWS, trainer_rows

pytestmark = pytest.mark.timeout(1500)

SAMPLED_BENCHMARKS_ONLY = {"seele_eval_sampled_accuracy"}
"""Metrics without data here, since the quickstart's evaluation is greedy only."""


def promql_of(page: Path) -> list[str]:
    return re.findall(r"^```promql\n(.*?)\n```$", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def seen(run: QuickstartRun, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """The last value of each series of a metric in the run, by the metric's own labels."""
    selector = f'{name}{{namespace="local",run="quickstart",attempt="1",pod="quickstart-trainer-0"}}'
    samples = run.prometheus.query(f"last_over_time({selector}[1h])", at=run.ended)
    outer = {*LABELS, "job", "instance", "__name__"}
    return {frozenset((k, v) for k, v in one.labels.items() if k not in outer): one.value for one in samples}


@pytest.mark.parametrize("row", trainer_rows(), ids=lambda row: row.name)
def test_every_metric_of_the_trainer_has_data(quickstart_run: QuickstartRun, row) -> None:
    name = f"{row.name}_bucket" if row.kind == "histogram" else row.name
    series = seen(quickstart_run, name)
    if row.name in SAMPLED_BENCHMARKS_ONLY:
        assert not series
        return
    assert series
    labels = {label for one in series for label, _ in one}
    assert labels == {*row.labels, *(["le"] if row.kind == "histogram" else [])}
    assert not all(math.isnan(value) for value in series.values())


@pytest.mark.parametrize("row", VLLM_ROWS, ids=lambda row: row.name)
def test_metrics_of_vllm_have_the_label_of_their_server(quickstart_run: QuickstartRun, row) -> None:
    series = seen(quickstart_run, f"{row.name}_count" if row.kind == "histogram" else row.name)
    assert series
    for one in series:
        labels = dict(one)
        assert labels["server"] == "0"
        assert set(labels) == {"server", "engine", "model_name", *row.labels}
    family = row.name.removesuffix("_total")
    exposed = quickstart_run.expositions["seele-rollout"]
    assert re.search(rf"^# TYPE {family}(_total)? {row.kind}$", exposed, flags=re.MULTILINE)


def test_prometheus_agrees_with_the_runs_records(quickstart_run: QuickstartRun) -> None:
    steps = records(quickstart_run.out, "metrics.jsonl")
    evaluations = records(quickstart_run.out, "eval.jsonl")

    def value(name: str, **labels: str) -> float:
        return seen(quickstart_run, name)[frozenset(labels.items())]

    # The trainer may end before the last step is scraped, and a busy machine misses a scrape or two.
    last = int(value("seele_training_step"))
    assert STEPS - 3 <= last <= STEPS
    assert value("seele_reward_mean") == pytest.approx(steps[last - 1]["reward"])
    assert value("seele_rollout_accuracy", round="4") == pytest.approx(steps[last - 1]["accuracyByRound"][3])
    assert value("seele_tokens_total", kind="generated") == sum(step["tokens"]["generated"] for step in steps[:last])
    assert value("seele_hint_rate_count") == sum(step["rollouts"] for step in steps[:last])
    assert value("seele_rollout_servers", state="ready") == 1
    assert value("seele_checkpoint_step") in (STEPS - CHECKPOINTS, STEPS)
    assert value("seele_eval_accuracy", benchmark="held-out") in [
        pytest.approx(one["scores"]["held-out"]["greedyAccuracy"]) for one in evaluations
    ]
    # vLLM also counts evaluations and canaries.
    (generated,) = seen(quickstart_run, "vllm:generation_tokens_total").values()
    assert generated >= value("seele_tokens_total", kind="generated")


def test_the_server_was_starting_before_it_was_ready(quickstart_run: QuickstartRun) -> None:
    def ever(state: str) -> float:
        (sample,) = quickstart_run.prometheus.query(
            f'max_over_time(seele_rollout_servers{{state="{state}"}}[1h])', at=quickstart_run.ended
        )
        return sample.value

    assert (ever("starting"), ever("ready"), ever("down")) == (1, 1, 0)


def test_promtool_accepts_what_the_trainer_serves(quickstart_run: QuickstartRun) -> None:
    assert complaints_about_metrics(quickstart_run.expositions["seele-trainer"]) == ""
    # promtool dislikes some of vLLM's names, but can parse the text, which has only vLLM's families.
    exposed = quickstart_run.expositions["seele-rollout"]
    assert "parsing error" not in complaints_about_metrics(exposed)
    assert len(exposed) < MAX_ANSWER_BYTES / 10
    names = {line.split()[2] for line in exposed.splitlines() if line.startswith("# TYPE")}
    assert names
    assert all(name.startswith("vllm:") and not name.endswith("_created") for name in names)


def test_rules_are_evaluated_and_no_alert_fires_on_a_healthy_run(quickstart_run: QuickstartRun) -> None:
    rules = quickstart_run.prometheus.rules()
    assert len(rules) == RULES.read_text().count("expr:")
    assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in rules} == {
        (rule["name"], "ok", "") for rule in rules
    }
    # ALERTS includes pending alerts, so an expression with any result at all is found.
    alerts = quickstart_run.prometheus.query("count_over_time(ALERTS[1h])", at=quickstart_run.ended)
    # There is no operator here.
    assert {one.labels["alertname"] for one in alerts} == {"SeeleOperatorDown"}
    (recorded,) = quickstart_run.prometheus.query(
        "last_over_time(run:seele_rollout_accuracy:mean[1h])", at=quickstart_run.ended
    )
    assert 0 < recorded.value < 1


@pytest.mark.parametrize("query", promql_of(REPOSITORY / "docs" / "metrics.md"))
def test_queries_of_the_documentation_return_data(quickstart_run: QuickstartRun, query: str) -> None:
    samples = quickstart_run.prometheus.query(query, at=quickstart_run.ended)
    assert samples
    assert not all(math.isnan(one.value) for one in samples)
