"""The metrics of a run, its progress and health, and the server that shows them."""

import errno
import json
import logging
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from seele_trainer.config import TrainerConfig
from seele_trainer.rollout.protocol import RolloutServer
from seele_trainer.run_folder.journal import read_records
from seele_trainer.run_folder.records import EvaluationRecord, Progress, SampleRollout, StepRecord
from seele_trainer.telemetry.definitions import (
    EVALUATION_METRICS,
    MOMENT_METRICS,
    RUN_METRICS,
    STEP_METRICS,
    TIME_METRICS,
)
from seele_trainer.telemetry.metric import HISTOGRAM_METRICS, PROBLEM_METRICS, hint_rate_histogram
from seele_trainer.telemetry.recorder import Recorder, remaining_evaluations, remaining_seconds
from seele_trainer.telemetry.server import TelemetryServer, TelemetryServerError
from tests.support.run_folder import evaluation_record, make_run_folder, run_config, step_record
from tests.support.waiting import Clock

CONTRACT = {
    ("gauge", None): "training_step training_steps_total_planned target_accuracy unhinted_accuracy irt_fit_seconds "
    "learning_efficiency zero_gradient_groups_ratio reward_mean policy_mismatch_kl weight_sync_seconds policy_version "
    "checkpoint_step attempt last_progress_timestamp_seconds",
    ("gauge", "round"): "rollout_accuracy hint_rate_mean",
    ("gauge", "benchmark"): "eval_accuracy",
    ("gauge", "term"): "loss",
    ("gauge", "phase"): "phase_seconds",
    ("gauge", "state"): "rollout_servers",
    ("histogram", None): "hint_rate irt_discrimination irt_ability irt_guessing solution_revealable_ratio",
    ("counter", None): "irt_fit_fallbacks_total verifier_timeouts_total",
    ("counter", "kind"): "tokens_total",
    ("counter", "outcome"): "rollout_requests_total",
    ("counter", "phase"): "phase_time_seconds_total",
}
"""Metrics that dashboards and users rely on, without `seele_`, by type and label."""


def quiet_config(steps: int = 120) -> TrainerConfig:
    return run_config(steps, observability={"tensorboard": False})


def scrape(recorder: Recorder) -> dict[tuple[str, str], float]:
    """Value by sample name and label value."""
    text = generate_latest(recorder.registry).decode()
    samples = [sample for family in parse_text(text) for sample in family.samples]
    return {(sample.name, next(iter(sample.labels.values()), "")): sample.value for sample in samples}


@pytest.mark.parametrize(
    ("kind", "label", "name"),
    [(*place, f"seele_{name}") for place, names in CONTRACT.items() for name in names.split()],
)
def test_every_metric_of_the_contract_is_exported_with_its_type_and_label(
    tmp_path: Path, kind: str, label: str | None, name: str
) -> None:
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.watch_servers(lambda: [RolloutServer("http://first:8000", "ready")])
        recorder.record_step(step_record(1))
        recorder.record_evaluation(evaluation_record(1, 0.25))
        families = {family.name: family for family in parse_text(generate_latest(recorder.registry).decode())}
    family = families[name.removesuffix("_total")]
    assert family.type == kind
    samples = [sample for sample in family.samples if not sample.name.endswith(("_sum", "_count"))]
    assert samples
    assert all(
        set(sample.labels) == ({"le"} if kind == "histogram" else {label} if label else set()) for sample in samples
    )
    if kind == "counter":
        assert {sample.name for sample in samples} == {name}


def test_gauges_show_the_last_step_and_counters_include_all(tmp_path: Path) -> None:
    records = [step_record(step) for step in (1, 2, 3)]
    with Recorder(tmp_path, quiet_config()) as recorder:
        for record in records:
            recorder.record_step(record)
        seen = scrape(recorder)
    assert seen["seele_training_step", ""] == 3
    assert seen["seele_training_steps_total_planned", ""] == 120
    assert seen["seele_rollout_accuracy", "2"] == pytest.approx(records[-1].accuracy_by_round[1])
    assert seen["seele_loss", "supervised"] == pytest.approx(records[-1].losses.supervised)
    assert seen["seele_phase_seconds", "train"] == pytest.approx(records[-1].phase_seconds["train"])
    assert seen["seele_tokens_total", "generated"] == sum(record.tokens.generated for record in records)
    assert seen["seele_rollout_requests_total", "ok"] == 3 * 64


class ScrapedOnRelease:
    """A lock that triggers a scrape each time it is released."""

    def __init__(self, scrape: Callable[[], None]) -> None:
        self._scrape = scrape
        self._scraping = False

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if not self._scraping:
            self._scraping = True
            self._scrape()
            self._scraping = False


def test_no_scrape_sees_a_step_that_is_counted_but_not_yet_shown(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []

    def look() -> None:
        values = scrape(recorder)
        seen.append((values["seele_training_step", ""], values["seele_irt_guessing_count", ""] / 16))

    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder._collector._lock = ScrapedOnRelease(look)  # type: ignore[assignment]
        for step in (1, 2):
            recorder.record_step(step_record(step))
    assert seen == [(1, 1), (2, 2)]


def test_histograms_count_every_rollout_and_every_fitted_problem(tmp_path: Path) -> None:
    rates = [0.0, 0.05, 0.31, 0.31, 1.0]
    record = step_record(1, hint_rate=sum(rates) / len(rates), hint_rate_histogram=hint_rate_histogram(rates))
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.record_step(record)
        recorder.record_step(record.model_copy(update={"step": 2}))
        seen = scrape(recorder)
    assert seen["seele_hint_rate_bucket", "0.3"] == 4
    assert seen["seele_hint_rate_bucket", "0.35"] == 8
    assert seen["seele_hint_rate_bucket", "+Inf"] == seen["seele_hint_rate_count", ""] == 10
    assert seen["seele_hint_rate_sum", ""] == pytest.approx(2 * sum(rates))
    assert record.irt is not None
    assert seen["seele_irt_ability_bucket", "-0.5"] == 2 * sum(ability <= -0.5 for ability in record.irt.ability)
    assert seen["seele_irt_discrimination_count", ""] == 2 * 16


def test_what_was_not_measured_is_nan_instead_of_an_earlier_value(tmp_path: Path) -> None:
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.record_step(step_record(1))
        recorder.record_step(
            step_record(2, unhinted_accuracy=None, accuracy_by_round=(0.5, None, None, None), irt=None)
        )
        seen = scrape(recorder)
    assert str(seen["seele_unhinted_accuracy", ""]) == "nan"
    assert seen["seele_rollout_accuracy", "1"] == 0.5
    assert str(seen["seele_rollout_accuracy", "2"]) == "nan"
    assert seen["seele_irt_guessing_count", ""] == 16


def test_servers_are_counted_by_state_at_the_moment_of_the_scrape(tmp_path: Path) -> None:
    servers = [RolloutServer("http://0", "ready"), RolloutServer("http://1", "starting")]
    with Recorder(tmp_path, quiet_config()) as recorder:
        assert not any(name == "seele_rollout_servers" for name, _ in scrape(recorder))
        recorder.watch_servers(lambda: servers)
        before = scrape(recorder)
        servers[:] = [RolloutServer("http://0", "down"), RolloutServer("http://1", "ready")]
        after = scrape(recorder)
    states = ("starting", "ready", "down")
    assert [before["seele_rollout_servers", state] for state in states] == [1, 1, 0]
    assert [after["seele_rollout_servers", state] for state in states] == [0, 1, 1]


def test_the_time_of_the_last_progress_is_that_of_this_process(tmp_path: Path) -> None:
    def last_progress() -> float:
        return scrape(recorder)["seele_last_progress_timestamp_seconds", ""]

    make_run_folder(tmp_path, steps=7)
    calendar = Clock()
    calendar.now = 5000.0
    with Recorder(tmp_path, quiet_config(), attempt=2, calendar=calendar) as recorder:
        # The progress of an earlier attempt does not count: a run that waited a day for its restart has not stalled.
        assert last_progress() == 5000
        for act in (
            lambda: recorder.record_step(step_record(8)),
            lambda: recorder.record_evaluation(evaluation_record(8, 0.5)),
            lambda: recorder.update_progress(last_checkpoint_step=8),
        ):
            calendar.now += 10
            recorder.set_phase("train")
            assert last_progress() == calendar.now - 10
            act()
            assert last_progress() == calendar.now
        assert scrape(recorder)["seele_checkpoint_step", ""] == 8
        assert scrape(recorder)["seele_attempt", ""] == 2


def test_phases_that_a_step_did_not_have_took_no_time_and_all_are_totalled(tmp_path: Path) -> None:
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.record_step(step_record(1, phase_seconds={"rollout": 2.0, "eval": 3.0}))
        recorder.record_step(step_record(2, phase_seconds={"rollout": 1.0}))
        seen = scrape(recorder)
    assert (seen["seele_phase_seconds", "rollout"], seen["seele_phase_seconds", "eval"]) == (1, 0)
    totals = {phase: seen["seele_phase_time_seconds_total", phase] for phase in ("rollout", "eval", "checkpoint")}
    assert totals == {"rollout": 3, "eval": 3, "checkpoint": 0}


def test_no_metric_is_defined_twice_and_each_is_explained() -> None:
    scalars = (*RUN_METRICS, *STEP_METRICS, *TIME_METRICS, *EVALUATION_METRICS, *MOMENT_METRICS)
    table = [*scalars, *HISTOGRAM_METRICS, *PROBLEM_METRICS]
    assert len({metric.name for metric in table}) == len(table)
    assert all(metric.help.endswith(".") and metric.unit for metric in table)


def test_a_resumed_run_forgets_the_steps_it_repeats_but_not_their_cost(tmp_path: Path) -> None:
    make_run_folder(tmp_path, steps=50, planned=120)
    spent = sum(record.tokens.generated for record in read_records(tmp_path / "metrics.jsonl", StepRecord))
    with Recorder(tmp_path, quiet_config()) as recorder:
        before = scrape(recorder)
        recorder.truncate_after(33)
        seen = scrape(recorder)
        assert recorder.progress().step == 33
        assert recorder.last_evaluation is not None
        assert recorder.last_evaluation.step == 20
        recorder.record_step(step_record(34))
        after = scrape(recorder)
    steps = [record.step for record in read_records(tmp_path / "metrics.jsonl", StepRecord)]
    assert steps == list(range(1, 35))
    assert [record.step for record in read_records(tmp_path / "eval.jsonl", EvaluationRecord)] == [0, 20]
    assert max(record.step for record in read_records(tmp_path / "rollouts.jsonl", SampleRollout)) == 33
    assert seen["seele_training_step", ""] == 33
    assert before["seele_tokens_total", "generated"] == seen["seele_tokens_total", "generated"] == spent
    assert after["seele_tokens_total", "generated"] > spent
    assert after["seele_hint_rate_count", ""] == 51 * 16 * 32
    with Recorder(tmp_path, quiet_config()) as again:
        assert scrape(again)["seele_tokens_total", "generated"] == after["seele_tokens_total", "generated"]


def test_a_resume_without_a_checkpoint_starts_from_nothing(tmp_path: Path) -> None:
    make_run_folder(tmp_path, steps=7)
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.truncate_after(0)
        assert recorder.progress().step == 0
        assert recorder.progress().eta_seconds is None
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    assert [record.step for record in read_records(tmp_path / "eval.jsonl", EvaluationRecord)] == [0]


def get(url: str, accept: str = "*/*") -> tuple[int, str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


def test_the_server_answers_metrics_progress_and_health(tmp_path: Path) -> None:
    clock = Clock()
    with (
        Recorder(tmp_path, quiet_config(), attempt=3, clock=clock) as recorder,
        TelemetryServer(recorder, "127.0.0.1", 0) as server,
    ):
        base = f"http://127.0.0.1:{server.port}"
        recorder.record_step(step_record(1))
        recorder.record_evaluation(evaluation_record(1, 0.4))
        recorder.set_phase("train")

        status, content_type, text = get(f"{base}/metrics")
        assert (status, content_type.split(";")[0]) == (200, "text/plain")
        assert "seele_reward_mean" in {family.name for family in parse_text(text)}
        status, content_type, text = get(f"{base}/metrics", accept="application/openmetrics-text; version=1.0.0")
        assert content_type.startswith("application/openmetrics-text")
        assert "seele_tokens" in {family.name for family in parse_openmetrics(text)}

        status, content_type, text = get(f"{base}/progress")
        assert (status, content_type) == (200, "application/json")
        shown = json.loads(text)
        assert (shown["step"], shown["steps"], shown["phase"], shown["policyVersion"]) == (1, 120, "train", 0)
        assert (shown["attempt"], shown["lastCheckpointStep"], shown["message"]) == (3, None, "")
        assert shown["reward"] == pytest.approx(step_record(1).reward)
        assert shown["accuracy"] == 0.4
        assert shown["hintRate"] == pytest.approx(step_record(1).hint_rate)
        assert shown["etaSeconds"] > 0
        assert Progress.model_validate_json(text) == recorder.progress()

        assert get(f"{base}/healthz")[::2] == (200, "ok\n")
        clock.now += 900 + 300 + 1
        status, _, text = get(f"{base}/healthz")
        assert status == 503
        assert "no heartbeat for 1201 s" in text
        assert "phase train" in text
        recorder.heartbeat()
        assert get(f"{base}/healthz")[0] == 200
        recorder.set_phase("failed", "no rollout server is left")
        assert get(f"{base}/healthz")[::2] == (503, "the run failed at step 1: no rollout server is left\n")
        assert get(f"{base}/nothing")[0] == 404


def test_a_taken_port_is_refused_with_the_variable_to_change(tmp_path: Path) -> None:
    with socket.socket() as taken, Recorder(tmp_path, quiet_config()) as recorder:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            TelemetryServerError, match=rf"127\.0\.0\.1:{port}: the port is in use\. Set SEELE_HTTP_PORT"
        ):
            TelemetryServer(recorder, "127.0.0.1", port)


def test_an_impossible_port_is_refused(tmp_path: Path) -> None:
    with (
        Recorder(tmp_path, quiet_config()) as recorder,
        pytest.raises(TelemetryServerError, match="70000 is not a port: set SEELE_HTTP_PORT"),
    ):
        TelemetryServer(recorder, "127.0.0.1", 70000)


def test_a_closed_server_frees_its_port(tmp_path: Path) -> None:
    with Recorder(tmp_path, quiet_config()) as recorder:
        server = TelemetryServer(recorder, "127.0.0.1", 0)
        server.close()
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", server.port)) == errno.ECONNREFUSED


@given(steps=st.integers(1, 60), every=st.integers(0, 25))
def test_remaining_evaluations_follow_the_schedule(steps: int, every: int) -> None:
    scheduled = {step for step in range(1, steps + 1) if every and step % every == 0} | {steps}
    for step in range(steps + 1):
        assert remaining_evaluations(step, steps, every) == len([at for at in scheduled if at > step])


def test_the_expected_time_includes_every_step_and_every_evaluation_once() -> None:
    inside = step_record(10, step_seconds=5.0, phase_seconds={"train": 2.0, "eval": 3.0})
    evaluations = [evaluation_record(10, 0.5).model_copy(update={"seconds": 3.0})]
    outside = inside.model_copy(update={"step_seconds": 2.0})
    # 10 more steps of 2 s, evaluations after steps 15 and 20.
    for record in (inside, outside):
        assert remaining_seconds([record], evaluations, steps=20, every=5) == pytest.approx(10 * 2.0 + 2 * 3.0)
    assert remaining_seconds([], evaluations, steps=20, every=5) is None


def test_progress_falls_back_on_the_probes_before_the_first_evaluation(tmp_path: Path) -> None:
    with Recorder(tmp_path, quiet_config()) as recorder:
        recorder.record_step(step_record(1, unhinted_accuracy=0.125))
        assert recorder.progress().accuracy == 0.125
        recorder.record_evaluation(evaluation_record(1, 0.5))
        recorder.record_step(step_record(2, unhinted_accuracy=0.25))
        assert recorder.progress().accuracy == 0.5


def test_an_unknown_field_of_progress_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), Recorder(tmp_path, quiet_config()) as recorder:
        recorder.update_progress(last_checkpoint_step=20)
        assert recorder.progress().last_checkpoint_step == 20
        with pytest.raises(ValueError, match="checkpoint"):
            recorder.update_progress(checkpoint=21)
